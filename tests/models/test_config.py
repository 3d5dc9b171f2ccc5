# SPDX-License-Identifier: Apache-2.0
"""Settings of a model that cannot be: each is refused in one line that names it."""

import pytest

from t5tasks.models.config import ModelConfig, from_mapping


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="'kv_head'; did you mean 'kv_heads'?"):
        from_mapping({"kv_head": 2})


@pytest.mark.parametrize(("changes", "message"), [
    ({"norm": "layer"}, "model.norm is 'layer'; expected one of layernorm, rmsnorm"),
    ({"width": 0}, "model.width is 0; it must be positive"),
    ({"heads": 6, "kv_heads": 4}, "model.heads is 6, not a multiple of model.kv_heads 4"),
    ({"dropout": 1.0}, "model.dropout is 1.0; it must be in \\[0, 1\\)"),
    ({"attention_dropout": -0.1}, "model.attention_dropout is -0.1; it must be in \\[0, 1\\)"),
    ({"head_size": 5}, "model.head_size is 5; rotary positions need it even"),
    ({"encoder_layers": 1}, "model.architecture is decoder but encoder_layers is 1"),
    ({"architecture": "encoder", "decoder_layers": 0}, "encoder_layers is 0"),
    ({"positions": "relative", "relative_buckets": 1}, "model.relative_buckets is 1"),
    ({"positions": "relative", "relative_distance": 16}, "model.relative_distance is 16"),
])
def test_what_cannot_be_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        ModelConfig(**changes)
