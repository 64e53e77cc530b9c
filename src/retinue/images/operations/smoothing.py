"""Blur: less noise, and with some of them edges as they were."""

from typing import Annotated

import cv2
import numpy as np

from retinue.images.operations.operation import GRAY, LAB, RGB, Image, operation
from retinue.pipeline.ranges import Range

Side = Annotated[int, Range(ge=1, le=99, odd=True, unit="px")]


@operation(GRAY, RGB, LAB)
def blur(image: Image, kernel_size: Side = 3) -> np.ndarray:
    """Box blur: the mean under the kernel."""
    return cv2.blur(image, (kernel_size, kernel_size))


@operation(GRAY, RGB, LAB)
def gaussian_blur(
    image: Image, kernel_size: Side = 3, sigma: Annotated[float, Range(ge=0, le=50, unit="px")] = 0.0
) -> np.ndarray:
    """Gaussian blur; `sigma` 0 follows the kernel size, 3 x 3 px then being [1 2 1; 2 4 2; 1 2 1] / 16."""
    return cv2.GaussianBlur(image, (kernel_size, kernel_size), sigma)


@operation(GRAY, RGB, LAB)
def median_blur(image: Image, kernel_size: Side = 3) -> np.ndarray:
    """Median blur: the median under the kernel, which takes salt and pepper away."""
    return cv2.medianBlur(image, kernel_size)


@operation(GRAY, RGB, LAB)
def bilateral_filter(
    image: Image,
    diameter: Annotated[int, Range(ge=1, le=25, odd=True, unit="px")] = 9,
    sigma_color: Annotated[float, Range(gt=0, le=500)] = 75.0,
    sigma_space: Annotated[float, Range(gt=0, le=500, unit="px")] = 75.0,
) -> np.ndarray:
    """Bilateral filter: a mean of px that are near and of like value, so that edges stay."""
    return cv2.bilateralFilter(image, diameter, sigma_color, sigma_space)


@operation(GRAY, RGB)
def non_local_means(
    image: Image,
    h: Annotated[float, Range(gt=0, le=100)] = 10.0,
    template_window_size: Annotated[int, Range(ge=1, le=15, odd=True, unit="px")] = 7,
    search_window_size: Annotated[int, Range(ge=1, le=51, odd=True, unit="px")] = 21,
) -> np.ndarray:
    """Non-local means: a mean of px whose surroundings look alike; `h` is how much noise goes."""
    if image.shape[2] == 1:
        return cv2.fastNlMeansDenoising(image, None, h, template_window_size, search_window_size)
    reversed_colours = np.ascontiguousarray(image[:, :, ::-1])  # OpenCV wants BGR here
    denoised = cv2.fastNlMeansDenoisingColored(reversed_colours, None, h, h, template_window_size, search_window_size)
    return denoised[:, :, ::-1]
