"""Write the fixture that the Rust embedder is held against: token ids and vectors.

    pip install -r requirements.txt onnxruntime tokenizers
    python export.py CHECKPOINT int8.onnx
    python export.py CHECKPOINT fp32.onnx --precision fp32
    python reference.py CHECKPOINT int8.onnx fp32.onnx ../../tests/fixtures/embed/reference.json

Not part of `build`; run it when the graph or the strings change.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

SENTENCES = [
    "A chunk keeps its id when its text does not change.",
    "Unchanged passages are not embedded a second time.",
    "The cat sat on the mat and watched the rain.",
    "Qdrant holds the vectors; PostgreSQL decides which of them count.",
    "Straßenbahnen in Zürich fahren pünktlich.",
    "",
]

AWKWARD = [
    "",
    " \t\r\n ",
    "Hello, World!",
    "café CAFÉ cafe\u0301 naïve Übergröße",
    "straße STRASSE ẞ ß",
    "İstanbul ISTANBUL ıstanbul",
    "ΑΘΗΝΑΣ αθηνας Ὀδυσσεύς",
    "Привет, мир! Ёлка й",
    "日本語のテキストです。",
    "中文text混合abc",
    "한국어 문장입니다",
    "\uac00 \u1100\u1161",
    "العربية مُشَكَّلَة",
    "हिन्दी में क्षेत्र",
    "ไทยไม่มีช่องว่าง",
    "emoji 😀👍🏽 👩\u200d👩\u200d👧 🇩🇪 \u2764\ufe0f",
    "a\u0000b\u0007c\u001bd\u007fe\u0085f",
    "zero\u200bwidth soft\u00adhyphen \ufeffbom \u200fmark",
    "replacement \ufffd character",
    "private \ue000\uf8ff use",
    "no\u00a0break thin\u2009space ideographic\u3000space line\u2028separator",
    "!!!???... --- *** ((nested)) [x] {y} <z>",
    "“quotes” ‘single’ «guillemets» – — … • ·",
    "$100 €200 £300 ^ ` ~ | + = < >",
    "user@example.org https://example.org/a_b?c=d&e=%20#f",
    "snake_case camelCase kebab-case dotted.name C++ C# .NET",
    "3.14159 1,000,000 1e-10 0xDEADBEEF ½ ² ① Ⅷ",
    "ﬁ ﬂ ligatures ａｂｃ ﷺ",
    "[CLS] typed by a user [SEP] [MASK] [PAD] [UNK] ##ing",
    "x" * 100 + " " + "x" * 101,
    "Donaudampfschifffahrtsgesellschaftskapitän" * 4,
    "e\u0301\u0302\u0303\u0304 z\u0351\u036b\u0343\u032a",
    "antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis",
    "\U00020000\U0002a700\U0002b820\U0002f800 豈",
    "𝐁𝐨𝐥𝐝 𝔉𝔯𝔞𝔨𝔱𝔲𝔯 𝟘𝟙",
]


def rounded(rows: np.ndarray) -> list[list[float]]:
    return [[round(float(value), 5) for value in row] for row in rows]


def main() -> None:
    checkpoint, int8, fp32, output = map(Path, sys.argv[1:])
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    # A user's "[CLS]" is text.
    tokenizer.encode_special_tokens = True

    def vectors(model: Path) -> np.ndarray:
        session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
        ids = [np.array([tokenizer.encode(text).ids]) for text in SENTENCES]
        return np.concatenate([session.run(None, {"input_ids": text})[0] for text in ids])

    quantised, exact = vectors(int8), vectors(fp32)
    fixture = {
        "tokens": [{"text": text, "ids": tokenizer.encode(text).ids} for text in AWKWARD],
        "sentences": SENTENCES,
        "int8_first_components": rounded(quantised[:, :8]),
        "int8_cosines": rounded(quantised @ quantised.T),
        "fp32_cosines": rounded(exact @ exact.T),
    }
    lines = json.dumps(fixture, ensure_ascii=True, indent=None, separators=(",", ":"))
    # One record a line, so that a change is a readable diff.
    for opening in ('{"text"', '"sentences"', '"int8_', '"fp32_', "[["):
        lines = lines.replace(opening, "\n" + opening)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(lines + "\n")
    print("lowest cosine of int8 to fp32:", float((quantised * exact).sum(axis=1).min()))


if __name__ == "__main__":
    main()
