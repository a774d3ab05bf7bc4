"""Drafts: which fit, which gain, which are known. test_draft_compatibility.py asks the real engine
about the pairs."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from deployments.formats.gguf import read_header
from deployments.formats.kinds import DEDICATED_DRAFTS
from deployments.formats.model_facts import ModelFacts
from deployments.planning.architecture import ModelShape
from deployments.planning.drafts import (
    DraftModel,
    acceptance_prior,
    break_even,
    expected_tokens,
    moved_bytes,
    ngram_break_even,
    ngram_slowdown,
    ngram_speedup,
    rank_drafts,
    speedup,
    verify_ratio,
)
from deployments.planning.known_drafts import (
    DEDICATED,
    MTP,
    NGRAM_MOD,
    family,
    known_drafts,
    lookup_tokens,
    most_drafted,
    own_drafting,
    spec_type_of,
)
from deployments.planning.vocabulary import (
    VocabFacts,
    differing_token,
    draft_compatibility,
    vocab_facts,
)
from tests.deployments.gguf_corpus import smollm2, write_stub
from tests.planning.vocabularies import BASE, BYTES, PAIRS, Vocab, write_header

GB = 10**9


def vocab_of(folder: Path, vocab: Vocab) -> VocabFacts:
    return vocab_facts(read_header(write_header(folder / "vocab.gguf", vocab)))


# --- vocabularies ---------------------------------------------------------------------------------
@pytest.mark.parametrize("name", PAIRS)
def test_pairs_of_vocabularies(name: str, tmp_path: Path) -> None:
    target, draft, code = PAIRS[name]
    verdict = draft_compatibility(vocab_of(tmp_path, target), vocab_of(tmp_path, draft))
    assert verdict.code == code
    assert verdict.ok is (code == "compatible")
    assert verdict.text.endswith(".")


@pytest.mark.parametrize("name", PAIRS)
def test_the_fingerprint_finds_what_comparing_all_texts_finds(
    name: str, tmp_path: Path
) -> None:
    target, draft, code = PAIRS[name]
    headers = [
        read_header(write_header(tmp_path / f"{n}.gguf", each))
        for n, each in enumerate((target, draft))
    ]
    differs = differing_token(*(header.tokens() for header in headers)) is not None
    if code in ("compatible", "vocab_texts"):
        assert differs is (code == "vocab_texts")


def test_the_first_differing_token_is_named() -> None:
    one, other = [b"%d" % n for n in range(20)], [b"%d" % n for n in range(20)]
    other[3], other[12], other[15] = b"x", b"y", b"z"
    assert differing_token(one, other) == 12


def test_vocab_facts_survive_being_stored(tmp_path: Path) -> None:
    facts = vocab_of(tmp_path, BASE)
    stored = json.dumps(facts.to_dict())
    assert VocabFacts.from_dict(json.loads(stored)) == facts
    assert len(stored) < 2500
    assert VocabFacts.from_dict({}) == VocabFacts()
    assert VocabFacts.from_dict({"kind": "SPM", "later": 1}).kind == "SPM"


def test_a_file_without_vocabulary_fits_nothing(tmp_path: Path) -> None:
    path = write_stub(
        tmp_path / "none.gguf",
        {"general.architecture": "llama", "llama.vocab_size": 600},
        [],
    )
    none = vocab_facts(read_header(path))
    assert none == VocabFacts(n_vocab=600)
    assert draft_compatibility(none, none).code == "vocab_unknown"
    assert draft_compatibility(vocab_of(tmp_path, BASE), none).code == "vocab_unknown"


@pytest.mark.parametrize(
    ("vocab", "bos", "add_bos"),
    [
        (replace(BASE, bos=None), 1, True),
        (replace(BYTES, bos=None), 11, False),
        (replace(BYTES, pre="glm4", bos=None), None, False),
        (replace(BYTES, pre="gemma4", add_bos=False), 1, True),
        (replace(BASE, model="t5", bos=None), None, False),
        (replace(BASE, model="who knows"), None, False),
    ],
)
def test_what_the_file_does_not_say_is_the_engines_default(
    vocab: Vocab, bos: int | None, add_bos: bool, tmp_path: Path
) -> None:
    facts = vocab_of(tmp_path, vocab)
    assert (facts.bos, facts.add_bos) == (bos, add_bos)


def accepted_by_the_rule(target: list[bytes], draft: list[bytes]) -> bool:
    """The engine's loop, token by token."""
    pairs = list(zip(target, draft, strict=False))[5:]
    return abs(len(target) - len(draft)) <= 128 and all(
        one == other for one, other in pairs
    )


def test_random_vocabularies_are_judged_as_by_comparing_every_token(
    tmp_path: Path,
) -> None:
    chance, seen = random.Random(7), set()
    for _ in range(150):
        size = chance.choice([1, 5, 6, 100, 128, 129, 133, 134, 400])
        other = max(1, size + chance.choice([0, 0, 1, -1, 127, 128, 129, -128, -129]))
        target, draft = (
            [f"t{number}" for number in range(count)] for count in (size, other)
        )
        if chance.random() < 0.6:
            changed = chance.choice([target, draft])
            changed[
                chance.choice(
                    [0, 4, 5, 6, len(changed) - 1, chance.randrange(len(changed))]
                )
                % len(changed)
            ] = "x"
        expected = accepted_by_the_rule(
            [t.encode() for t in target], [t.encode() for t in draft]
        )
        facts = [
            vocab_of(tmp_path, Vocab(tokens=tuple(tokens), bos=0, eos=0))
            for tokens in (target, draft)
        ]
        assert draft_compatibility(*facts).ok is expected, (target, draft)
        seen.add(expected)
    assert seen == {True, False}


def test_a_few_tokens_are_a_vocabulary_too(tmp_path: Path) -> None:
    small = [
        vocab_of(tmp_path, Vocab(tokens=tuple(f"t{n}" for n in range(size))))
        for size in (3, 5, 6, 9)
    ]
    assert all(draft_compatibility(one, other).ok for one in small for other in small)


def test_a_large_vocabulary_is_read() -> None:
    facts = vocab_facts(read_header(smollm2()))
    assert (facts.kind, facts.n_vocab, facts.add_bos) == ("BPE", 49152, False)
    assert draft_compatibility(facts, facts).ok


# --- formulas -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("acceptance", "n_draft", "tokens"),
    [(0, 4, 1), (1, 4, 5), (0.8, 1, 1.8), (0.8, 5, 3.68928), (0.5, 2, 1.75)],
)
def test_expected_tokens(acceptance: float, n_draft: int, tokens: float) -> None:
    assert expected_tokens(acceptance, n_draft) == pytest.approx(tokens)


def test_the_draft_and_the_verification_are_paid_for() -> None:
    assert speedup(0.8, 5, 0) == pytest.approx(3.68928)
    assert speedup(0, 4, 0.1) == pytest.approx(1 / 1.4)
    assert speedup(0.5, 2, 0.1, verify_ratio=1.3) == pytest.approx(1.75 / 1.5)


@pytest.mark.parametrize(("n_draft", "cost"), [(1, 0.3), (4, 0.1), (8, 0.02), (3, 0.9)])
def test_at_the_break_even_nothing_is_gained(n_draft: int, cost: float) -> None:
    threshold = break_even(n_draft, cost)
    assert threshold is not None
    assert speedup(threshold, n_draft, cost) == pytest.approx(1)


def test_a_draft_as_slow_as_its_target_never_breaks_even() -> None:
    assert break_even(4, 1.01) is None
    assert break_even(1, 0.25) == pytest.approx(0.25)


# --- n-grams --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("verify", "share"), [(1.0, 0.0), (1.24, 0.005), (13.0, 0.25), (49.0, 1.0)]
)
def test_a_long_draft_pays_from_a_small_share_on(verify: float, share: float) -> None:
    found = ngram_break_even(48, verify)
    assert found == pytest.approx(share)
    # One check of 48 drafted tokens takes as long as it gives tokens.
    assert found is not None and 1 + 48 * found == pytest.approx(verify)


def test_a_check_that_takes_longer_than_all_its_tokens_never_pays() -> None:
    assert ngram_break_even(48, 50.0) is None


@pytest.mark.parametrize(
    ("n_draft", "verify", "times"),
    [(48, 1.0, 3.333), (48, 12.0, 1.89), (8, 1.0, 3.333)],
)
def test_text_that_repeats_itself_is_as_much_faster_as_tokens_need_no_step(
    n_draft: int, verify: float, times: float
) -> None:
    assert ngram_speedup(n_draft, verify) == pytest.approx(times, rel=0.001)


def test_a_refused_draft_costs_its_check_once_in_so_many_tokens() -> None:
    assert ngram_slowdown(12, 1.0) == 1.0
    assert ngram_slowdown(12, 13.0) == 0.5
    assert ngram_slowdown(1, 4.0) == 0.25
    assert (lookup_tokens("ngram-simple"), lookup_tokens(NGRAM_MOD)) == (12, 24)


def test_ngrams_draft_as_much_as_the_engine_does_whatever_is_set() -> None:
    assert most_drafted("ngram-simple", 3) == 48
    assert most_drafted("draft-simple", 3) == 3


def model(name: str, billions: float, bits: float = 4.8, **more: object) -> ModelFacts:
    size = int(billions * 1e9 * bits / 8)
    active = (
        int(billions * 1e9) if "active" not in more else int(more.pop("active") * 1e9)
    )  # type: ignore[operator]
    arch = str(more.pop("arch", "qwen2"))
    return ModelFacts(name, arch, int(billions * 1e9), active, "Q4_K_M", size, **more)  # type: ignore[arg-type]


CODER_32B = model("Qwen2.5 Coder 32B Instruct", 32.8, n_embd=5120)
CODER_05B = model("Qwen2.5 Coder 0.5B Instruct", 0.494, 8.5)
CODER_7B = model("Qwen2.5 Coder 7B Instruct", 7.6)
R1 = model(
    "DeepSeek R1 0528",
    671,
    arch="deepseek2",
    active=37.6,
    n_expert=256,
    n_expert_used=8,
    n_nextn_layers=1,
    n_embd=7168,
)


def test_the_prior_is_what_was_published_for_lamda() -> None:
    lamda = model("LaMDA", 137)
    for billions, published in ((8, 0.75), (2, 0.71), (0.1, 0.61)):
        own = model("LaMDA", billions)
        family_gap = 0.15  # neither name is of a known family
        assert acceptance_prior(lamda, own) + family_gap == pytest.approx(
            published, abs=0.01
        )


def test_less_is_accepted_of_strangers_and_of_much_smaller_drafts() -> None:
    stranger = replace(CODER_05B, name="Something 0.5B")
    assert acceptance_prior(CODER_32B, stranger) == pytest.approx(
        acceptance_prior(CODER_32B, CODER_05B) - 0.15
    )
    assert acceptance_prior(CODER_32B, CODER_05B) < acceptance_prior(
        CODER_32B, CODER_7B
    )


def test_a_mixture_of_experts_reads_more_for_more_tokens() -> None:
    assert verify_ratio(CODER_32B, 8) == 1
    assert moved_bytes(CODER_32B) == CODER_32B.size_bytes
    assert moved_bytes(R1) == pytest.approx(R1.size_bytes * 37.6 / 671, rel=0.01)
    assert 2.5 < verify_ratio(R1, 3) < 4
    assert moved_bytes(R1, 100_000) == pytest.approx(R1.size_bytes)


# --- the choice -----------------------------------------------------------------------------------
VOCAB = VocabFacts("BPE", 1000, prefixes="a" * 129 * 16)
OTHER = VocabFacts("BPE", 1000, prefixes="b" * 129 * 16)


def test_drafts_are_ranked_by_gain_and_the_others_say_why() -> None:
    target = DraftModel("32b", CODER_32B, VOCAB)
    candidates = [
        DraftModel("other", replace(CODER_05B, name="Llama 3.2 1B"), OTHER),
        DraftModel("7b", CODER_7B, VOCAB),
        DraftModel("itself", CODER_32B, VOCAB),
        DraftModel("0.5b", CODER_05B, VOCAB),
    ]
    ranked = rank_drafts(target, candidates)
    assert [choice.name for choice in ranked] == ["0.5b", "7b", "itself", "other"]
    assert [choice.advice for choice in ranked] == [
        "good",
        "good",
        "slower",
        "incompatible",
    ]
    best, _, itself, other = ranked
    assert 1.8 < best.speedup < 3 and 1 < best.n_draft < 16
    assert best.break_even and best.break_even < best.acceptance
    assert best.cost_ratio == pytest.approx(CODER_05B.size_bytes / CODER_32B.size_bytes)
    assert "times as fast" in best.text
    assert itself.n_draft == 1
    assert (
        other.compatibility.code == "vocab_texts"
        and other.text == other.compatibility.text
    )


def test_a_draft_in_slower_memory_costs_more() -> None:
    target = DraftModel("32b", CODER_32B, VOCAB, bandwidth_gbps=1792)
    drafts = [
        DraftModel(name, CODER_05B, VOCAB, bandwidth_gbps=speed)
        for name, speed in (("gpu", 1792), ("cpu", 80))
    ]
    gpu, cpu = rank_drafts(target, drafts)
    assert (gpu.name, cpu.name) == ("gpu", "cpu")
    assert cpu.cost_ratio == pytest.approx(gpu.cost_ratio * 1792 / 80)
    assert cpu.n_draft < gpu.n_draft


def test_known_times_and_a_measured_acceptance_replace_the_estimates() -> None:
    target = DraftModel("32b", CODER_32B, VOCAB, token_seconds=0.020)
    draft = DraftModel("0.5b", CODER_05B, VOCAB, token_seconds=0.004)
    (choice,) = rank_drafts(target, [draft], n_draft=3, acceptance=0.5)
    assert (choice.cost_ratio, choice.n_draft, choice.acceptance) == (
        pytest.approx(0.2),
        3,
        0.5,
    )
    assert choice.speedup == pytest.approx(1.875 / 1.6)


def test_a_draft_with_a_short_context_says_so() -> None:
    short = DraftModel("0.5b", replace(CODER_05B, n_ctx_train=32768), VOCAB)
    target = DraftModel("32b", CODER_32B, VOCAB)
    (within,) = rank_drafts(target, [short], context=32768)
    (beyond,) = rank_drafts(target, [short], context=65536)
    assert "32768" not in within.text
    assert beyond.text.startswith(within.text) and "32768" in beyond.text


def test_experts_leave_little_to_gain() -> None:
    draft = DraftModel("draft", model("DeepSeek-R1-DRAFT-0.6B", 0.6), VOCAB)
    (choice,) = rank_drafts(DraftModel("r1", R1, VOCAB), [draft])
    assert choice.verify_ratio > 1.5
    assert choice.advice in ("little", "slower")


def test_eagle_drafts_read_states_of_one_width() -> None:
    eagle = replace(CODER_05B, arch="eagle3", hparams={"target_hidden_size": 5120})
    target = DraftModel("32b", CODER_32B, VOCAB)
    (fits,) = rank_drafts(target, [DraftModel("eagle", eagle, VOCAB)])
    assert (fits.spec_type, fits.compatibility.ok) == ("draft-eagle3", True)
    wider = replace(eagle, hparams={"target_hidden_size": 8192})
    (other,) = rank_drafts(target, [DraftModel("eagle", wider, VOCAB)])
    assert other.compatibility.code == "target_width"


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("projector", "not_a_model"),
        ("adapter", "not_a_model"),
        ("control_vector", "not_a_model"),
        ("imatrix", "not_a_model"),
        ("vocabulary", "not_a_model"),
        ("other", "not_a_model"),
        ("embedding", "not_a_generator"),
        ("reranker", "not_a_generator"),
    ],
)
def test_what_does_not_generate_is_no_draft_and_has_none(kind: str, code: str) -> None:
    other = DraftModel("other", replace(CODER_05B, kind=kind), VOCAB)
    target = DraftModel("32b", CODER_32B, VOCAB)
    (choice,) = rank_drafts(target, [other])
    assert (choice.compatibility.code, choice.advice, choice.speedup) == (
        code,
        "incompatible",
        0.0,
    )
    (turned,) = rank_drafts(
        replace(target, facts=replace(CODER_32B, kind=kind)),
        [replace(other, facts=CODER_05B)],
    )
    assert not turned.compatibility.ok


def test_the_files_that_draft_for_one_target_are_known_in_one_way() -> None:
    assert set(DEDICATED) == DEDICATED_DRAFTS


# --- known drafts ---------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "arch", "expected"),
    [
        ("Qwen2.5 Coder 32B Instruct", "qwen2", "qwen2.5-coder"),
        ("Qwen2.5-Coder-32B-Instruct", "qwen2", "qwen2.5-coder"),
        ("Qwen2.5 72B Instruct", "qwen2", "qwen2.5"),
        ("Qwen3-235B-A22B", "qwen3moe", "qwen3"),
        ("Qwen3.5 35B A3B", "qwen35moe", "qwen3.5"),
        ("Qwen3 Coder 480B A35B Instruct", "qwen3moe", "qwen3-coder"),
        ("Meta-Llama-3.1-70B-Instruct", "llama", "llama-3.1+"),
        ("Llama 3.3 70B Instruct", "llama", "llama-3.1+"),
        ("Meta Llama 3 8B", "llama", "llama-3"),
        ("DeepSeek R1 0528", "deepseek2", "deepseek-r1"),
        ("DeepSeek R1 Distill Qwen 32B", "qwen2", "deepseek-r1-distill-qwen"),
        ("DeepSeek-V3.1", "deepseek2", "deepseek-v3"),
        ("Gemma 3 27b It", "gemma3", "gemma-3"),
        ("gemma-3n-E4B-it", "gemma3n", ""),
        ("Gemma-4-31B-It", "gemma4", "gemma-4"),
        ("SmolLM2 1.7B Instruct", "llama", "smollm2"),
        ("Smollm2 135M 8k Lc100K Mix1 Ep2", "llama", "smollm2"),
        ("gpt-oss-120b", "gpt-oss", "gpt-oss"),
        ("Mistral Small 3.1 24B Instruct", "llama", "mistral-small"),
        ("A model", "llama", ""),
    ],
)
def test_families_by_name(name: str, arch: str, expected: str) -> None:
    assert family(model(name, 10, arch=arch)) == expected


def test_known_drafts_are_smaller_than_the_target() -> None:
    assert known_drafts(CODER_32B)[0].repo == "Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF"
    assert known_drafts(CODER_05B) == []
    assert [
        draft.n_params for draft in known_drafts(model("Qwen2.5 Coder 1.5B", 1.54))
    ] == [494_000_000] * 2
    assert known_drafts(R1)[0].repo.startswith("jukofyork/DeepSeek-R1-DRAFT")
    assert known_drafts(model("Nobody 7B", 7)) == []


def test_drafts_made_for_one_target_are_named_for_it_only() -> None:
    large, small = (
        known_drafts(model(f"Llama 3.3 {size}B Instruct", size, arch="llama"))
        for size in (70.6, 3.2)
    )
    assert [(draft.spec_type, draft.is_gguf) for draft in large] == [
        ("draft-simple", True),
        ("draft-eagle3", False),
    ]
    assert [draft.spec_type for draft in small] == ["draft-simple"]


def test_what_a_target_drafts_with_by_itself() -> None:
    mtp, *ngram = own_drafting(R1, has_graph=True)
    assert (mtp.spec_type, mtp.is_usable) == (MTP, True)
    assert ngram[0].spec_type == NGRAM_MOD
    assert [own.spec_type for own in own_drafting(CODER_32B)] == [
        own.spec_type for own in ngram
    ]
    unused = own_drafting(replace(R1, arch="exaone-moe"), has_graph=False)[0]
    assert not unused.is_usable and "exaone-moe" in unused.text
    assert not own_drafting(R1)[0].is_usable, "no engine has told"
    old = own_drafting(R1, {"ngram-simple"})
    assert [(own.spec_type, own.is_usable) for own in old] == [
        (MTP, False),
        ("ngram-simple", True),
    ]


def test_layers_that_the_file_lacks_draft_nothing(r1: ModelShape) -> None:
    lacking, *_ = own_drafting(R1, shape=r1)
    assert not lacking.is_usable and "lacks" in lacking.text
    tensor = r1.kinds[-1].tensors[0]._replace(name="nextn.eh_proj.weight")
    whole = replace(
        r1, kinds=(*r1.kinds[:-1], replace(r1.kinds[-1], tensors=(tensor,)))
    )
    assert own_drafting(R1, shape=whole, has_graph=True)[0].is_usable


def test_spec_types() -> None:
    assert spec_type_of(CODER_05B) == "draft-simple"
    assert spec_type_of(replace(CODER_05B, arch="dflash")) == "draft-dflash"
