"""Reference networks."""

from spikequant.models.conv import ConvSNN, digits_net, mnist_net

__all__ = ["ConvSNN", "digits_net", "mnist_net"]
