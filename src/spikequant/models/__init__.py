"""Reference networks."""

from spikequant.models.conv import ConvSNN, digits_net, mnist_net
from spikequant.models.sew_resnet import SEWBlock, SEWResNet

__all__ = ["ConvSNN", "SEWBlock", "SEWResNet", "digits_net", "mnist_net"]
