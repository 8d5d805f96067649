"""Which model stands for each timm and torchvision family: its smallest, or a smaller build."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

__all__ = ["TIMM", "TORCHVISION", "Family"]


@dataclasses.dataclass(frozen=True)
class Family:
    """What stands for a family: a model's name, how it is built and what it takes.

    Args:
        name: timm's module, or `"torchvision."` and a name of ours.
        model: The name to build it by.
        kwargs: What it is built with, where that isn't the default.
        shape: Of one image; `None`: the smallest that it takes.
        part: Of torchvision: `"classification"`, `"segmentation"`, `"detection"`, `"video"`.
    """

    name: str
    model: str
    kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict[str, Any])
    shape: tuple[int, ...] | None = None
    part: str = "classification"

    @property
    def library(self) -> str:
        """Where it comes from: `"timm"` or `"torchvision"`."""
        return "torchvision" if self.name.startswith("torchvision.") else "timm"


_SMALLEST = """
beit beit_base_patch16_224
byoanet eca_botnext26ts_256
byobnet mobileone_s0
cait cait_xxs24_224
coat coat_tiny
convit convit_tiny
convmixer convmixer_768_32
convnext convnext_atto
cpubone cpubone_nano
crossvit crossvit_tiny_240
csatv2 csatv2
cspnet cs3darknet_focus_s
cspnext cspnext_tiny
davit davit_tiny
deepseek_vit deepseek_vit_412m
deit deit_tiny_patch16_224
densenet densenet121
dla dla46x_c
dpn dpn48b
edgenext edgenext_xx_small
efficientformer efficientformer_l1
efficientformer_v2 efficientformerv2_s0
efficientnet mnasnet_small
efficientvim efficientvim_m1
efficientvit_mit efficientvit_b0
efficientvit_msra efficientvit_m0
eva eva02_tiny_patch14_224
fasternet fasternet_t0
fastvit fastvit_t8
focalnet focalnet_tiny_srf
gcvit gcvit_xxtiny
gemma4_vit gemma4_vit_167m
ghostnet ghostnet_050
hardcorenas hardcorenas_b
hgnet hgnetv2_b0
hiera hiera_tiny_224
hieradet_sam2 sam2_hiera_tiny
hrnet hrnet_w18_small
iformer iformer_t
inception_next inception_next_atto
inception_resnet_v2 inception_resnet_v2
inception_v3 inception_v3
inception_v4 inception_v4
lcnetv2 lcnetv2_small
levit levit_128s
lowformer lowformer_b0
mambaout mambaout_femto
maxxvit maxvit_pico_rw_256
metaformer caformer_s18
mlp_mixer gmlp_ti16_224
mobilenetv3 mobilenetv3_small_050
mobilenetv5 mobilenetv5_base
mobilevit mobilevit_xxs
mvitv2 mvitv2_tiny
naflexvit naflexvit_base_patch16_gap
nasnet nasnetalarge
nest nest_tiny
nextvit nextvit_small
nfnet nf_regnet_b0
pit pit_ti_224
pnasnet pnasnet5large
pvt_v2 pvt_v2_b0
qwen3_vit qwen3_vit_88m
rdnet rdnet_tiny
regnet regnetx_002
repghost repghostnet_050
repvit repvit_m1
res2net res2next50
resnest resnest14d
resnet resnet10t
resnetv2 resnetv2_18
rexnet rexnet_100
selecsls selecsls42
senet legacy_seresnet18
sequencer sequencer2d_s
shvit shvit_s1
sknet skresnet18
starnet starnet_s050
swiftformer swiftformer_xs
swin_transformer swin_tiny_patch4_window7_224
swin_transformer_v2 swinv2_tiny_window8_256
swin_transformer_v2_cr swinv2_cr_tiny_224
tiny_vit tiny_vit_5m_224
tnt tnt_s_patch16_224
tresnet tresnet_m
twins twins_svt_small
vgg vgg11
visformer visformer_tiny
vision_transformer vit_tiny_patch16_224
vision_transformer_hybrid vit_tiny_r_s16_p8_224
vision_transformer_relpos vit_relpos_small_patch16_224
vision_transformer_sam samvit_base_patch16_224
vitamin vitamin_small_224
volo volo_d1_224
vovnet ese_vovnet19b_slim_dw
xception legacy_xception
xception_aligned xception41
xcit xcit_nano_12_p16_224
"""

_SMALLER: dict[str, dict[str, Any]] = {  # the smallest has over 100 M parameters, or is slow
    "deepseek_vit": {"depth": 2},
    "gemma4_vit": {"depth": 4},
    "vgg": {"mlp_ratio": 0.25},
}
_SHAPES: dict[str, tuple[int, ...]] = {}

TIMM = tuple(
    Family(name, model, _SMALLER.get(name, {}), _SHAPES.get(name))
    for name, model in (line.split() for line in _SMALLEST.strip().splitlines())
)

_BACKBONE = {"weights_backbone": None}
_VIDEO = (3, 8, 64, 64)

TORCHVISION = (
    *(
        Family(f"torchvision.{name}", model)
        for name, model in {
            "alexnet": "alexnet",
            "convnext": "convnext_tiny",
            "densenet": "densenet121",
            "efficientnet": "efficientnet_b0",
            "efficientnet_v2": "efficientnet_v2_s",
            "inception_v3": "inception_v3",
            "maxvit": "maxvit_t",
            "mnasnet": "mnasnet0_5",
            "mobilenet_v2": "mobilenet_v2",
            "mobilenet_v3": "mobilenet_v3_small",
            "regnet": "regnet_x_400mf",
            "resnet": "resnet18",
            "resnext": "resnext50_32x4d",
            "shufflenet_v2": "shufflenet_v2_x0_5",
            "squeezenet": "squeezenet1_1",
            "swin": "swin_t",
            "swin_v2": "swin_v2_t",
            "vgg": "vgg11",
            "vit": "vit_b_16",
            "wide_resnet": "wide_resnet50_2",
        }.items()
    ),
    Family("torchvision.googlenet", "googlenet", {"init_weights": True, "aux_logits": True}),
    *(
        Family(f"torchvision.{name}", model, _BACKBONE, (3, 96, 96), "segmentation")
        for name, model in {
            "deeplabv3": "deeplabv3_mobilenet_v3_large",
            "fcn": "fcn_resnet50",
            "lraspp": "lraspp_mobilenet_v3_large",
        }.items()
    ),
    *(
        Family(f"torchvision.{name}.backbone", model, _BACKBONE, (3, 96, 96), "detection")
        for name, model in {
            "fasterrcnn": "fasterrcnn_mobilenet_v3_large_320_fpn",
            "fasterrcnn_v2": "fasterrcnn_resnet50_fpn_v2",
            "fcos": "fcos_resnet50_fpn",
            "keypointrcnn": "keypointrcnn_resnet50_fpn",
            "maskrcnn": "maskrcnn_resnet50_fpn",
            "retinanet": "retinanet_resnet50_fpn",
            "ssdlite": "ssdlite320_mobilenet_v3_large",
        }.items()
    ),
    # its extra layers have no output for smaller images
    Family("torchvision.ssd.backbone", "ssd300_vgg16", _BACKBONE, (3, 300, 300), "detection"),
    *(
        Family(f"torchvision.{name}", model, {}, shape, "video")
        for name, model, shape in (
            ("mvit", "mvit_v2_s", (3, 16, 224, 224)),
            ("s3d", "s3d", (3, 16, 224, 224)),
            ("swin3d", "swin3d_t", _VIDEO),
            ("video_resnet", "r3d_18", _VIDEO),
        )
    ),
)
