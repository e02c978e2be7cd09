"""What a vendor's SDK is like."""

import torch

version = torch.__version__
