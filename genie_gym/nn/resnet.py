"""ResNet-18: one picture in, a few numbers out."""

from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor, nn

STAGE_DIMS = (64, 128, 256, 512)
BLOCKS_PER_STAGE = 2
NUM_GROUPS = 32
"""Groups of channels that are normalized together."""


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut, which is 1 x 1 where the shape changes."""

    def __init__(self, in_dim: int, out_dim: int, *, stride: int) -> None:
        """Build it; a stride of 2 halves rows and columns, rounding up."""
        super().__init__()
        self.residual = nn.Sequential(
            convolution(in_dim, out_dim, size=3, stride=stride),
            nn.GroupNorm(NUM_GROUPS, out_dim),
            nn.ReLU(),
            convolution(out_dim, out_dim, size=3, stride=1),
            nn.GroupNorm(NUM_GROUPS, out_dim),
        )
        self.shortcut = nn.Sequential()
        if stride != 1 or in_dim != out_dim:
            self.shortcut.append(convolution(in_dim, out_dim, size=1, stride=stride))
            self.shortcut.append(nn.GroupNorm(NUM_GROUPS, out_dim))

    def forward(
        self, features: Float[Tensor, "B in_dim rows columns"]
    ) -> Float[Tensor, "B out_dim new_rows new_columns"]:
        """Return the features after the block; they are 0 or more."""
        out: Tensor = (self.residual(features) + self.shortcut(features)).relu()
        return out


class ResNet18(nn.Module):
    """Stem, four stages of two residual blocks, mean over the picture, one linear layer.

    Source:
        He et al. 2016, "Deep residual learning for image recognition", table 1 (18 layers), with
        projection shortcuts (option B). The norms are those of Wu and He 2018, "Group
        normalization", with as many parameters as batch norms: what is said of one picture hangs
        neither on the others beside it nor on running means, which lag behind in a short training.
    """

    def __init__(self, num_outputs: int) -> None:
        """Build it for pictures of any size; every 32 pixels become one cell."""
        super().__init__()
        self.stem = nn.Sequential(
            convolution(3, STAGE_DIMS[0], size=7, stride=2),
            nn.GroupNorm(NUM_GROUPS, STAGE_DIMS[0]),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        self.blocks = nn.Sequential()
        in_dim = STAGE_DIMS[0]
        for stage, dim in enumerate(STAGE_DIMS):
            for block in range(BLOCKS_PER_STAGE):
                stride = 2 if stage and not block else 1
                self.blocks.append(ResidualBlock(in_dim, dim, stride=stride))
                in_dim = dim
        self.head = nn.Linear(in_dim, num_outputs)

    def forward(self, images: Float[Tensor, "B H W 3"]) -> Float[Tensor, "B outputs"]:
        """Return the outputs for pictures in [0, 1]."""
        features = self.blocks(self.stem(rearrange(images, "B H W C -> B C H W")))
        out: Tensor = self.head(reduce(features, "B D rows columns -> B D", "mean"))
        return out


def convolution(in_dim: int, out_dim: int, *, size: int, stride: int) -> nn.Conv2d:
    """Return a convolution that keeps the size at stride 1; a norm follows, so no bias."""
    layer = nn.Conv2d(in_dim, out_dim, size, stride, padding=size // 2, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer
