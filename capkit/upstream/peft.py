"""peft: the base class of the layers that `inject_adapter_in_model` puts in place of a model's own."""

from peft.tuners.tuners_utils import BaseTunerLayer as BaseTunerLayer
