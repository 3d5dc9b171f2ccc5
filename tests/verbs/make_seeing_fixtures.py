# SPDX-License-Identifier: Apache-2.0
"""Tiny checkpoints of LLaVA and PaliGemma come in; what transformers makes of pictures and prompts goes out.

    VENV/bin/python tests/verbs/make_seeing_fixtures.py

Run by hand, with transformers 5.23 and Pillow 13. The weights are those of tests/pretrained/fixtures, the pictures
those of tests/data/fixtures. It writes fixtures/NAME: a tokenizer of few pieces, the image processor's file, and
reference.npz with, for each picture, input_ids and logits of prompt and answer, and the tokens that follow the
prompt greedily.
"""

import pathlib
import sys

import numpy as np
import torch
import transformers
from PIL import Image
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

HERE = pathlib.Path(__file__).parent
TESTS = HERE.parent
SIDE = 10
PICTURES = ("wide", "tall", "large")
QUESTIONS = ("What is there?", "which colours, left to right?", "How many discs are in it?")
ANSWERS = ("A sky.", "green and red", "Six discs")
NEW = 6
SPECIAL = {"llava": ("<pad>", "<s>", "</s>", "<unk>"), "paligemma": ("<pad>", "<eos>", "<bos>", "<unk>")}
IMAGE_TOKENS = {"llava": 150, "paligemma": 204}
PROMPTS = {"llava": "USER: <image>\n{} ASSISTANT:", "paligemma": "answer en {}"}


def tokenizer(name):
    """Pieces of characters and short words, spaces as Llama's or Gemma's tokenizer.json has them; <image> has the
    model's id."""
    made = Tokenizer(models.BPE(unk_token="<unk>"))
    scheme = "first" if name == "llava" else "never"
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    made.decoder = decoders.Metaspace(prepend_scheme=scheme)
    corpus = [*QUESTIONS, *ANSWERS, *(prompt.replace("<image>", "") for prompt in PROMPTS.values())]
    made.train_from_iterator(corpus * 4, trainers.BpeTrainer(
        vocab_size=140, special_tokens=list(SPECIAL[name]), show_progress=False))
    image = IMAGE_TOKENS[name]
    made.add_special_tokens([AddedToken(f"<unused{id}>", special=True, normalized=False)
                             for id in range(made.get_vocab_size(), image)])
    made.add_special_tokens([AddedToken("<image>", special=True, normalized=False)])
    assert made.token_to_id("<image>") == image
    bos = SPECIAL[name][1 if name == "llava" else 2]
    made.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, made.token_to_id(bos))])
    pad, *others = SPECIAL[name]
    named = dict(zip(("bos_token", "eos_token") if name == "llava" else ("eos_token", "bos_token"), others,
                     strict=False))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, pad_token=pad, unk_token="<unk>", **named)


def processor(name, folder):
    """The family's own processor, of whose files the tokenizer's and the image processor's are kept."""
    text = tokenizer(name)
    if name == "llava":
        images = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    else:
        images = SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE}, image_seq_length=4)
    text.save_pretrained(folder)
    images.save_pretrained(folder)
    text.image_token, text.image_token_id = "<image>", IMAGE_TOKENS[name]
    if name == "llava":
        return transformers.LlavaProcessor(images, text, patch_size=5, vision_feature_select_strategy="default",
                                           num_additional_image_tokens=1)
    return transformers.PaliGemmaProcessor(images, text)


def inputs(name, made, picture, question, answer):
    """Of prompt and answer, and of the prompt alone."""
    prompt = PROMPTS[name].format(question)
    if name == "llava":
        whole = made(images=picture, text=f"{prompt} {answer}</s>", return_tensors="pt")
        return whole, made(images=picture, text=prompt, return_tensors="pt")
    whole = made(images=picture, text=prompt, suffix=answer, return_tensors="pt")
    whole.pop("labels")
    return whole, made(images=picture, text=prompt, return_tensors="pt")


def main():
    for name in sys.argv[1:] or SPECIAL:
        folder = HERE / "fixtures" / name
        folder.mkdir(parents=True, exist_ok=True)
        made = processor(name, folder)
        model = transformers.AutoModelForImageTextToText.from_pretrained(
            TESTS / "pretrained" / "fixtures" / name, dtype=torch.float32, attn_implementation="eager").eval()
        found = {}
        for index, (picture, question, answer) in enumerate(zip(PICTURES, QUESTIONS, ANSWERS, strict=True)):
            image = Image.open(TESTS / "data" / "fixtures" / "images" / f"{picture}.png")
            whole, prompt = inputs(name, made, image, question, answer)
            with torch.no_grad():
                found[f"{index}/logits"] = model(**whole).logits[0].numpy()
                written = model.generate(**prompt, do_sample=False, max_new_tokens=NEW, eos_token_id=None)
            found[f"{index}/ids"] = whole["input_ids"][0].numpy()
            found[f"{index}/pixels"] = whole["pixel_values"][0].numpy()
            found[f"{index}/written"] = written[0, prompt["input_ids"].shape[1]:].numpy()
        np.savez_compressed(folder / "reference.npz", **found)


if __name__ == "__main__":
    main()
