"""The closed form once more, from the paper's formula and diffusers' own embeddings.

W = (sum_i w_i v_i k_i^T + ridge W0) (sum_i w_i k_i k_i^T + ridge I)^-1, row by row, by inversion,
and nothing of our capture, rows or solver in it.
"""

import torch

CAPTIONS = ("{}", "a photo of {}", "an image of {}", "a picture of {}")


def solved(weight, rows, ridge):
    """rows: (key (d_in,), value (d_out,), weight) each; the new weight in float64."""
    left = ridge * weight.double()
    right = ridge * torch.eye(weight.shape[1], dtype=torch.float64)
    for key, value, share in rows:
        left = left + share * torch.outer(value, key)
        right = right + share * torch.outer(key, key)
    return left @ torch.linalg.inv(right)


def prompt_states(pipeline, text):
    """What cross-attention reads (positions, width), and the last subject token of a text that
    ends with its subject."""
    embedded = pipeline.encode_prompt(text, "cpu", 1, False)[0][0].double()
    length = len(pipeline.tokenizer(text).input_ids)
    return embedded, length - 2


def last_state(pipeline, text):
    states, last = prompt_states(pipeline, text)
    return states[last]


def first_attention(pipeline, text):
    """Inputs and outputs (positions, width) of the first output projection, by hooks."""
    module = pipeline.text_encoder
    layer = getattr(module, "text_model", module).encoder.layers[0].self_attn.out_proj
    seen = []
    handle = layer.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0], output)))
    ids = pipeline.tokenizer(text, padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        module(ids)
    handle.remove()
    keys, values = (tensor[0].double() for tensor in seen[0])
    return keys, values, len(pipeline.tokenizer(text).input_ids) - 2
