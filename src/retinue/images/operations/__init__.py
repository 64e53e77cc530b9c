"""Operations of the field on whole images, each a function named as OpenCV and the texts name it."""
