"""What a network is and costs, told without training it: layers, sizes, receptive fields, memory."""
