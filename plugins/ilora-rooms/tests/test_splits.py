"""No room is in two splits, and words stay whole."""

from itertools import combinations

import pytest

from ilora_rooms.captions import vocabulary
from ilora_rooms.scene import build_scene
from ilora_rooms.splits import SPLITS, seeds
from ilora_rooms.words import MAX_TOKENS, build_tokenizer, write_tokenizer_files


def test_splits_are_disjoint() -> None:
    for a, b in combinations(SPLITS.values(), 2):
        assert a.stop <= b.start or b.stop <= a.start


def test_subsets_are_nested() -> None:
    assert list(seeds("labels", 16)) == list(seeds("labels", 64))[:16]


def test_asking_for_too_much_or_an_unknown_split_raises() -> None:
    with pytest.raises(ValueError, match="has 1000000 seeds"):
        seeds("test", 1_000_001)
    with pytest.raises(ValueError, match="unknown split"):
        seeds("train", 1)


def test_every_word_is_one_token() -> None:
    tokenizer = build_tokenizer()
    for word in vocabulary():
        assert len(tokenizer(word)["input_ids"]) == 3, word
    for prompt in ("surface normal", "surface normals", "depth", "depth map", "albedo", "shading"):
        assert tokenizer.decode(tokenizer(prompt)["input_ids"], skip_special_tokens=True).strip() == prompt


def test_captions_use_the_vocabulary_and_are_never_truncated() -> None:
    tokenizer, words = build_tokenizer(), set(vocabulary())
    for look in ("standard", "shifted"):
        for seed in range(60):
            caption = build_scene(seed, look).caption
            assert set(caption.replace(",", " ,").split()) <= words
            assert len(tokenizer(caption)["input_ids"]) <= MAX_TOKENS


def test_the_written_tokenizer_loads_and_agrees(tmp_path) -> None:
    from transformers import CLIPTokenizer

    write_tokenizer_files(tmp_path)
    assert (tmp_path / "vocab.json").exists()
    assert (tmp_path / "merges.txt").exists()
    loaded, built = CLIPTokenizer.from_pretrained(tmp_path), build_tokenizer()
    assert loaded.model_max_length == MAX_TOKENS
    text = "a pink striped bedroom, qwerty 42 depth map"
    assert loaded(text)["input_ids"] == built(text)["input_ids"]
