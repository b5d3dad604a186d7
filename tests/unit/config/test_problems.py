"""F18: each mistake in a recipe becomes one line with the dotted path, what is wrong, and the fix."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ifvit.config.errors import UserError
from ifvit.config.loading import load_recipe

MINIMAL = """\
name: small
data: {coco_root: images, shards_root: shards}
encoders: {autoencoder: random-autoencoder-small, text_encoder: random-clip-small}
"""
FUSION = "model: {fusion: {schedule: intermediate}}\n"
NAME_RULE = "must be 1 to 100 letters, digits, '.', '_' or '-', and begin with a letter or digit"

CASES = {
    # the examples of the style guide
    "model.num_attention_head=8": "model.num_attention_head: unknown field, did you mean num_attention_heads?",
    "model.depth=7": "model.depth: is 7, must be even: out-blocks mirror in-blocks",
    "model.fusion.num_image_blocks=9": "model.fusion.num_image_blocks: is 9, must be at most depth / 2 = 6",
    "model.fusion={schedule: early, num_image_blocks: 4}": (
        "model.fusion.num_image_blocks: unknown field (with schedule: early)"
    ),
    "optimizer.learning_rate=1e-4": (
        "optimizer.learning_rate: is the text '1e-4'; YAML reads 1e-4 as text, write 1.0e-4"
    ),
    # numbers
    "optimizer.learning_rate=-0.1": "optimizer.learning_rate: is -0.1, must be greater than 0",
    "optimizer.learning_rate=.inf": "optimizer.learning_rate: is inf, must be a finite number",
    "optimizer.learning_rate=2E5": "optimizer.learning_rate: is the text '2E5'; YAML reads 2E5 as text, write 2.0e+5",
    "train.max_steps=1e6": "train.max_steps: is the text '1e6'; YAML reads 1e6 as text, write 1000000",
    "train.caption_dropout_prob=1.5": "train.caption_dropout_prob: is 1.5, must be less than or equal to 1",
    "seed=-1": "seed: is -1, must be greater than or equal to 0",
    # wrong types
    "model.depth=12.5": "model.depth: is 12.5, must be an integer",
    "model.depth=twelve": "model.depth: is the text 'twelve', must be an integer",
    "model.depth=true": "model.depth: is true, must be an integer",
    "model.qkv_bias=1": "model.qkv_bias: is 1, must be true or false",
    "data.shards_root=": (
        "data.shards_root: is missing: write it in the recipe or give it with --set data.shards_root=... "
        "(or give data.mixture)"
    ),
    "encoders.autoencoder=": "encoders.autoencoder: is empty, must be text (write it in quotes)",
    "name=3": "name: is 3, must be text (write it in quotes)",
    "model=3": "model: is 3, must be a section",
    "train=[1]": "train: is the list [1], must be a section",
    "sampling.prompts=a cat": "sampling.prompts: is the text 'a cat', must be a list",
    "train.precision=fp16": "train.precision: is the text 'fp16', must be 'fp32' or 'bf16'",
    # one source of images
    "data.image_folder=pictures": (
        "data.image_folder: is given beside data.coco_root: one source is allowed, leave the other out with "
        "--set data.coco_root=null"
    ),
    "data.image_tars=x.tar": (
        "data.image_tars: is given beside data.coco_root: one source is allowed, leave the other out with "
        "--set data.coco_root=null"
    ),
    # one set of shards, or several
    "data.shards_root=null": (
        "data.shards_root: is missing: write it in the recipe or give it with --set data.shards_root=... "
        "(or give data.mixture)"
    ),
    "data.validation_split=train": "data.validation_split: is train, which is trained on; it must be another split",
    "data.mixture.more={shards_root: other, weight: 1}": (
        "data.mixture: is given beside data.shards_root: leave that out with --set data.shards_root=null"
    ),
    "data.mixture.more={shards_root: other}": (
        "data.mixture.more.weight: is missing: write it in the recipe or give it with "
        "--set data.mixture.more.weight=..."
    ),
    "data.mixture.more={shards_root: other, weight: 0}": "data.mixture.more.weight: is 0, must be greater than 0",
    "data.mixture.more={shards_root: other, wieght: 1, weight: 1}": (
        "data.mixture.more.wieght: unknown field, did you mean weight?"
    ),
    "data.mixture=3": "data.mixture: is 3, must be a section",
    "data.image_tars=5": "data.image_tars: is 5, must be a list",
    "data.image_tars=[]": "data.image_tars: is the list [], must have at least 1 value(s)",
    "data.max_bad_share=1.5": "data.max_bad_share: is 1.5, must be less than or equal to 1",
    # lists
    "optimizer.adam_betas=[0.9]": "optimizer.adam_betas: is the list [0.9], must have more values",
    "optimizer.adam_betas=[0.9, 0.9, 0.9]": (
        "optimizer.adam_betas: is the list [0.9, 0.9, 0.9], must have at most 2 value(s)"
    ),
    "optimizer.adam_betas=[0.9, 1e-4]": (
        "optimizer.adam_betas[1]: is the text '1e-4'; YAML reads 1e-4 as text, write 1.0e-4"
    ),
    "ema.decays=[]": "ema.decays: is the list [], must have at least 1 value(s)",
    "ema.decays=[1.0]": "ema.decays[0]: is 1.0, must be less than 1",
    "ema.decays=[0.9, 0.9]": "ema.decays: is [0.9, 0.9], must not name a decay twice",
    # fields that do not fit each other
    "model.num_attention_heads=7": "model.num_attention_heads: is 7, must divide hidden_size = 512",
    "model.patch_size=3": "model.patch_size: is 3, must divide sample_size = 32",
    "train.micro_batch_size=7": "train.micro_batch_size: is 7, must divide global_batch_size = 256",
    "checkpoint.milestone_every_steps=15000": (
        "checkpoint.milestone_every_steps: is 15000, must be a multiple of every_steps = 10000"
    ),
    "diffusion.beta_end=0.0001": "diffusion.beta_end: is 0.0001, must be at least beta_start = 0.00085",
    "sampling.num_inference_steps=2": (
        "sampling.num_inference_steps: is 2, must be at least 3 for dpmsolver++_singlestep_3"
    ),
    "runtime.zero_stage=0": (
        "runtime.zero_stage: is 0 with train.precision bf16, which is another optimiser in DeepSpeed: "
        "use zero_stage 1, also on one GPU, or precision fp32"
    ),
    "runtime.offload_optimizer=true": (
        "runtime.offload_optimizer: is true with runtime.zero_stage 1, must be false there; use 2 or 3"
    ),
    "train.max_grad_norm=0": "train.max_grad_norm: is 0, must be greater than 0",
    "train.activation_checkpointing=1.5": "train.activation_checkpointing: is 1.5, must be less than or equal to 1",
    "runtime.zero_stage=4": "runtime.zero_stage: is 4, must be less than or equal to 3",
    "runtime.zero_stage=true": "runtime.zero_stage: is true, must be an integer",
    "runtime.zero_stage=1.0": "runtime.zero_stage: is 1.0, must be an integer",
    "runtime.watchdog_seconds=1": "runtime.watchdog_seconds: is 1, must be greater than or equal to 4",
    # fields that would do nothing
    "tracking.validation_every_steps=10": (
        "tracking.validation_every_steps: is 10 and does nothing without data.validation_split; "
        "give that, or leave this out"
    ),
    "tracking.validation_num_samples=10": (
        "tracking.validation_num_samples: is 10 and does nothing without data.validation_split; "
        "give that, or leave this out"
    ),
    "train.bad_steps.spike_window=10": (
        "train.bad_steps.spike_window: is 10 and does nothing without spike_threshold; give that, or leave this out"
    ),
    "tracking={step_times_every_steps: 0, straggler_ratio: 2.0}": (
        "tracking.straggler_ratio: is 2.0 and does nothing without step_times_every_steps above 0; "
        "give that, or leave this out"
    ),
    # unknown names
    "learning_rate=0.1": "learning_rate: unknown field, did you mean optimizer.learning_rate?",
    "optimiser.learning_rate=0.1": "optimiser: unknown field, did you mean optimizer?",
    "train.max_rollbacks=1": "train.max_rollbacks: unknown field, did you mean train.bad_steps.max_rollbacks?",
    "checkpoint.async=true": "checkpoint.async: unknown field, did you mean asynchronous?",
    "model.fusion.schedule=late": "model.fusion.schedule: is the text 'late', must be one of early, intermediate",
    "model.fusion.early=3": "model.fusion.early: unknown field (with schedule: intermediate)",
    # names that become folders
    "name=a b": f"name: is the text 'a b', {NAME_RULE}",
    "name=../other": f"name: is the text '../other', {NAME_RULE}",
    'name="a\\n#SBATCH b"': f"name: is the text 'a\n#SBATCH b', {NAME_RULE}",
    "data.split=$(touch x)": f"data.split: is the text '$(touch x)', {NAME_RULE}",
}


@pytest.fixture(scope="module")
def minimal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipes") / "minimal.yaml"
    path.write_text(MINIMAL + FUSION)
    return path


@pytest.mark.fault(
    "F18",
    injected="typos, wrong types and impossible values in a recipe",
    detected="one line with the dotted path, what is wrong and the fix",
    recovered="-",
    lost="nothing",
)
@pytest.mark.parametrize("override", CASES)
def test_a_mistake_gets_one_line(minimal: Path, override: str) -> None:
    with pytest.raises(UserError) as error:
        load_recipe(minimal, [override])
    assert list(error.value.lines) == [CASES[override]]


def test_a_name_with_a_newline_at_its_end_is_refused(minimal: Path) -> None:
    with pytest.raises(UserError, match=r"^name: "):
        load_recipe(minimal, ['name="small\\n"'])


def test_several_mistakes_get_a_line_each(minimal: Path) -> None:
    with pytest.raises(UserError) as error:
        load_recipe(minimal, ["seed=x", "ema.decay=[0.9]", "optimizer.learning_rate=-1"])
    assert list(error.value.lines) == [
        "seed: is the text 'x', must be an integer",
        "optimizer.learning_rate: is -1, must be greater than 0",
        "ema.decay: unknown field, did you mean decays?",
    ]


def test_a_missing_field_says_how_to_give_it(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(MINIMAL.replace(", shards_root: shards", ""))
    with pytest.raises(UserError) as error:
        load_recipe(path)
    assert list(error.value.lines) == [
        "data.shards_root: is missing: write it in the recipe or give it with --set data.shards_root=... "
        "(or give data.mixture)"
    ]


@pytest.mark.fault(
    "F18",
    injected="a mistake given to the command",
    detected="exit code 2 and one line, before torch is imported",
    recovered="-",
    lost="nothing",
)
@pytest.mark.parametrize(
    ("mistake", "problem"),
    [
        (
            "model: {num_attention_head: 8}",
            "model.num_attention_head: unknown field, did you mean num_attention_heads?",
        ),
        ("model: {depth: twelve}", "model.depth: is the text 'twelve', must be an integer"),
        ("optimizer: {learning_rate: -1}", "optimizer.learning_rate: is -1, must be greater than 0"),
        ("model: {num_attention_heads: 7}", "model.num_attention_heads: is 7, must divide hidden_size = 512"),
        ("name: again", "the key 'name' stands twice in one section"),
        ("seed: !!python/object/apply:os.system ['touch mark']", "could not determine a constructor for the tag"),
    ],
)
def test_validate_ends_with_code_2_and_one_line_without_torch(tmp_path: Path, mistake: str, problem: str) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"{MINIMAL}{mistake}\n")
    # A torch that cannot be imported: validation must not notice.
    (tmp_path / "torch.py").write_text("raise RuntimeError('torch was imported')\n")
    code = "import sys; sys.path.insert(0, '.'); from ifvit.commands.main import entry_point; entry_point()"
    done = subprocess.run(
        [sys.executable, "-c", code, "validate", str(recipe)], capture_output=True, text=True, cwd=tmp_path
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert problem in done.stderr
    assert not (tmp_path / "mark").exists()


def test_python_m_ifvit_validate_accepts_a_good_recipe(minimal: Path) -> None:
    command = [sys.executable, "-m", "ifvit", "validate", str(minimal)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("arguments", ["validate RECIPE", "--help", "train --help"])
def test_output_that_nobody_reads_ends_without_a_traceback(arguments: str, minimal: Path) -> None:
    command = [sys.executable, "-m", "ifvit", *arguments.replace("RECIPE", str(minimal)).split()]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    # argparse itself may swallow the error, where its help is too long to be buffered.
    assert done.returncode in ((0, 141) if arguments == "train --help" else (141,))
    assert done.stderr == ""
