# SPDX-License-Identifier: Apache-2.0
"""Nothing comes in; what the fixtures' tokenizers are trained on, and the texts and chats they are tried on, go out."""

import random

SENTENCES = """The quick brown fox jumps over the lazy dog, and the dog doesn't care at all.
She said: "I'll be there at 7:30 pm, won't I?" and he answered that he'd see.
In 2024 the price rose by 12.5 % to 1,299.99 dollars; nobody knew why (yet).
Der Käufer überprüft natürlich die größeren Äpfel, während wir schlafen.
Où étaient les élèves français à Noël ? Ça va très bien, merci beaucoup.
El niño comió piñas y después cantó una canción en el jardín.
今日は天気がいいので、公園へ行きましょう。
我们在北京大学学习中文,他是我的朋友。
안녕하세요 저는 학생입니다 만나서 반갑습니다
مرحبا بالعالم هذا نص عربي قصير للتجربة
שלום עולם זה טקסט קצר בעברית
Привет мир, это короткий русский текст для проверки.
नमस्ते दुनिया यह एक छोटा वाक्य है
สวัสดีชาวโลก นี่คือข้อความ
def add(first, second):
    return first + second  # the sum
for index in range(10):
    if index % 2 == 0:
        print(f"{index} is even")
class Stack(object):
    def __init__(self, items=None):
        self.items = list(items or [])
import os, sys; from typing import Any
<html><body class="main">Hello &amp; welcome</body></html>
the of and to in is that for it was on with as be at by this had not are but from or have an they which one you
were her all she there would their we him been has when who will more no if out so said what up its about into than
them can only other new some could time these two may then do first any my now such like our over man me even most
system user assistant You are a helpful assistant. [INST] <<SYS>> model emoji: 😀 😂 ❤️ 👍 🎉 and text
""".strip().split("\n")
CORPUS = SENTENCES * 8 + [sentence.upper() for sentence in SENTENCES[:6]] * 2

TRICKY = [
    "", " ", "  ", "\n", "\t", "a", " a", "a ", "  a  b  ", "Hello world", "  two  leading, trailing \t\n",
    "don't stop, e.g. 3.14 %", "naïve cafe\u0301 Ångström \u0301", "\u0301", "e\u0301\u0302\u0303",
    "日本語のテキスト、中文。", "한국어 텍스트", "ᄒ\u1161\u11ab글", "😀 👩\u200d👩\u200d👧 \U0001f1e9\U0001f1ea",
    "👍🏽👍🏿",
    "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f", "❤️\u200d🔥",
    "zero\u200bwidth\u00a0no-break\ufeff", "\ufeffbom first", "soft\u00adhyphen \u2060 joiner\u200c\u200d",
    "ﬁne ½ ① ﷺ ﷽", "ﬃ ﬀ ﬅ", "İstanbul ẞ ǅ ß", "\x00\x07\x7f", "a\x00b", "\x85\u2028\u2029", "\u3000全角　スペース",
    "مرحبا بالعالم", "שָׁלוֹם עולם", "\u202eright to left\u202c", "नमस्ते दुनिया", "สวัสดีชาวโลก", "a" * 300,
    "supercalifragilistic" * 8, "x" * 101, "漢" * 60, "." * 50, "!?…—–‚„“”‘’«»", ",", "'", "''", "' s", "it's 'll I'LL",
    "\\n \\", "\r\n\r\n", "\r", "a\r\nb\n\n\nc", "\t\tif x:\n\t\t\treturn\n", "def f(a, b):\n    return a + b\n",
    "1234567890", "١٢٣ Ⅷ ²³", "𝓗𝓮𝓵𝓵𝓸 𝟘𝟙", "Ａｂｃ１２３", "ℌ ℵ K Å", "▁ ▁▁a ▁b", "Ġthe Ċ", "##ing ##", "a##b",
    "[unused0]", "<0x0A><0x41>", "\ufffd", "\u0378 unassigned", "\ue000 private", "\U0010ffff", "ab\u0300\u0316c",
    "A\u030a ồ ก็ क्षि", "mixed日本語text中文", "a@example.org http://a.b/c?d=e#f", "$1,299.99 €5 £3", " \u00a0 ",
    "   \n   x", "x   \n", "\u1680\u2000\u2003x", "\u200b", "\u200b\u200b x", "Ǆ ǆ ΣΑΣ ς", "㎏ ㍿ ｶﾞ が", "i̇ ŉ ΐ",
    "plain words and more plain words"]
MARKERS = [
    "a [MASK] b", "[CLS]x[SEP]", "</s>", "<s> x </s>", "a</s>b", "<pad><mask>", "<|endoftext|>", "<unk> [UNK]",
    "x<|im_end|>\n<|im_start|>system", "<|eot_id|>", "<start_of_turn>user\nhi<end_of_turn>", "<extra_id_0> of",
    "[INST] hi [/INST]", "<|startoftext|>", " <mask>  ", "<tool_call>{}</tool_call>", "a <think> b",
    ">>fra<< Hello >>fra<<", ">>xyz<<"]
ALPHABETS = [
    "abcdefghijklmnopqrstuvwxyz", "ABCXYZ", "0123456789", " ", " \t\n\r\u00a0\u3000\u200b\u2003\x85\x0b\x0c\u2028",
    ".,;:!?'\"-_()[]{}<>/\\|@#$%^&*+=~`", "éèüößñçÅøğı", "日本語中文漢字한국어かな",
    "\u0301\u0308\u0327\u05b8\u064e\u0e48\u094d",
    "😀😂👍❤🏽\U0001f1e9\ufe0f\u200d", "مرحباשלום", "ﬁ½①²ﷺ㎏ＡⅧ", "\x00\x01\x1b\x7f\xad\u200e\u202e\ufeff\ufffd", "▁Ġ#",
    "ΣςİıſẞǅΐŉЖж"]
WORDS = [
    "the", "quick", "fox", "don't", "natürlich", "größeren", "élèves", "今日は", "我们", "안녕하세요",
    "مرحبا", "שלום", "Привет", "नमस्ते", "return", "self.items", "index", "12.5", "==", '"x"',
    "emoji", "😀", "The", "HELLO"]


def mixed_texts(count: int, seed: int = 7) -> list[str]:
    """Words, white space and signs of every script in any order."""
    chance, texts = random.Random(seed), []
    for _ in range(count):
        parts = []
        for _ in range(chance.choice([1, 2, 3, 5, 8, 13, 20])):
            kind = chance.random()
            if kind < 0.35:
                parts.append(chance.choice(WORDS))
            elif kind < 0.5:
                parts.append(chance.choice([" ", "  ", " \n", "\t", "\n", " "]))
            elif kind < 0.97:
                alphabet = "".join(chance.choices(ALPHABETS, k=1 if kind < 0.9 else 2))
                parts.append("".join(chance.choice(alphabet) for _ in range(chance.randint(1, 5))))
            else:
                parts.append(chr(chance.choice([chance.randrange(0xd800), chance.randrange(0xe000, 0x110000)])))
        texts.append(chance.choice(["", "", " "]).join(parts))
    return texts


# Chat templates in the formats of well-known families.
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>'"
    " + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
CHATML_GENERATION = (
    "{% for message in messages %}\n{{ '<|im_start|>' ~ message.role }}\n"
    "{% if message.role == 'assistant' %}{% generation %}{{ message.content }}<|im_end|>{% endgeneration %}\n"
    "{% else %}{{ message.content }}<|im_end|>{% endif %}\n\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")
THINKING = """\
{%- set state = namespace(last=0) -%}
{%- for message in messages -%}{%- if message.role == 'user' -%}{%- set state.last = loop.index0 -%}{%- endif -%}
{%- endfor -%}
{%- for message in messages -%}
{%- set text = message.content -%}
{%- if message.role == 'assistant' and '</think>' in text -%}
{%- set thought = text.split('</think>')[0].split('<think>')[-1].strip('\\n') -%}
{%- set text = text.split('</think>')[-1].lstrip('\\n') -%}
{%- if loop.index0 > state.last -%}
{%- set text = '<think>\\n' + thought + '\\n</think>\\n\\n' + text -%}
{%- endif -%}
{%- endif -%}
{{- '<|im_start|>' + message.role + '\\n' + text + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}
{%- if enable_thinking is defined and not enable_thinking -%}{{- '<think>\\n\\n</think>\\n\\n' -}}{%- endif -%}
{%- endif -%}
"""
LLAMA_2 = """\
{%- set system = '' -%}
{%- if messages[0]['role'] == 'system' -%}
{%- set system = '<<SYS>>\\n' + messages[0]['content'] + '\\n<</SYS>>\\n\\n' -%}
{%- set messages = messages[1:] -%}
{%- endif -%}
{%- for message in messages -%}
{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
{{- raise_exception('Roles must take turns: user, assistant, user, assistant') -}}
{%- endif -%}
{%- if message['role'] == 'user' -%}
{{- bos_token + '[INST] ' + (system if loop.first else '') + message['content'].strip() + ' [/INST]' -}}
{%- else -%}
{{- ' ' + message['content'].strip() + ' ' + eos_token -}}
{%- endif -%}
{%- endfor -%}
"""
LLAMA_3 = (
    "{{- bos_token -}}{%- for message in messages -%}{{- '<|start_header_id|>' + message['role'] +"
    " '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' -}}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' -}}{%- endif -%}")
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('There is no system role') }}{% endif %}"
    "{% for message in messages %}{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}")
MISTRAL = (
    "{{- bos_token }}{%- for message in messages %}{%- if message.role == 'user' %}"
    "{{- '[INST] ' + message.content + '[/INST]' }}{%- elif message.role == 'assistant' %}"
    "{{- ' ' + message.content + eos_token }}{%- else %}{{- raise_exception('Only user and assistant') }}"
    "{%- endif %}{%- endfor %}")
PHI_3 = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}")
PLAIN = (
    "{% for message in messages %}{{ message.role | capitalize }}: {{ message.content }}###\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}")

DIALOGUES = [
    [("user", "Hello, who are you?"), ("assistant", "I'm a fox."), ("user", "Why?"), ("assistant", "Nobody knows.")],
    [("system", "You are a helpful assistant."), ("user", "def f(x):\n    return x\n\nWhat is it?"),
     ("assistant", "A function:\n\n1. it takes x\n2. it returns x"), ("user", "natürlich 今日は 😀?")],
    [("user", "  spaces and \n lines \n"), ("assistant", "\n so \n many  "), ("user", "\tindeed "),
     ("assistant", "Yes")],
    [("system", " \n be kind \n"), ("user", "Hi"), ("assistant", "")],
    [("user", "2 + 2"), ("assistant", "<think>\nEasy.\n</think>\n\n4"), ("user", "3 + 3"),
     ("assistant", "<think>\nEasy too.\n</think>\n\n6")],
]
