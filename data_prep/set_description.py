"""What the sealed JSON files of a set of shards say: index.json, done-marks and the listing, with types that hold."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from data_prep.bad_samples import Tally
from data_prep.token_frame import TokenFrame
from ifvit.data.sealed_json import unsealed
from ifvit.data.shard_format import FORMAT_VERSION, SampleShapes, ShardFiles

Count = Annotated[int, Field(ge=0, lt=2**62)]
MAX_SIZE = 2**16


def possible(shapes: SampleShapes) -> SampleShapes:
    if not all(1 <= size <= MAX_SIZE for size in vars(shapes).values()):
        raise ValueError(f"{vars(shapes)} must be from 1 to {MAX_SIZE}")
    return shapes


class DescriptionError(Exception):
    """(what is wrong with a file)"""


class Described(BaseModel):
    """A part of such a file. What else is in it is passed over."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises DescriptionError."""
        try:
            content = path.read_bytes()
            unsealed(content)
            return cls.model_validate_json(content)
        except FileNotFoundError:
            raise DescriptionError("is missing") from None
        except OSError as error:
            raise DescriptionError(f"cannot be read ({error.strerror})") from error
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise DescriptionError(f"is malformed or of an earlier version ({place}: {first['msg']})") from error
        except ValueError as error:
            raise DescriptionError(f"is damaged or of an earlier version ({error})") from error


class ShardFacts(Described):
    """What both a shard's done-mark and index.json say of it."""

    tar: str
    samples: Count
    prompts: Count
    size: Count
    sha256: str
    index_sha256: str

    def differences(self, other: "ShardFacts") -> list[str]:
        """The names of the values that `other` has otherwise."""
        return [name for name in ShardFacts.model_fields if getattr(self, name) != getattr(other, name)]


class QuarantinedSample(Described):
    """A listed sample that is not in its shard."""

    id: int
    image: str
    reason: str


class DoneMark(ShardFacts):
    """A shard's done-mark."""

    listing_sha256: str
    quarantined: list[QuarantinedSample]
    dropped_captions: dict[str, Count]
    latent_sums: tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat]
    settings: dict[str, Any]

    @classmethod
    def of(cls, files: ShardFiles) -> "DoneMark":
        """That of shard `files.number`. Raises DescriptionError."""
        mark = cls.read(files.mark)
        if mark.tar != files.tar.name:
            raise DescriptionError(f"is the done-mark of another shard, {mark.tar}")
        return mark


class LeftOut(Described):
    """How many samples or captions were left out for one reason; the ids of the first, and where the first lies."""

    count: Count
    ids: list[int]
    image: str = ""


def tally_of(left_out: dict[str, LeftOut]) -> Tally:
    return Tally.from_json({reason: vars(entry) for reason, entry in left_out.items()})


class Identity(Described):
    """An encoder."""

    name: str
    sha256: str
    random: bool


class TextIdentity(Identity):
    """A text encoder and its tokenizer."""

    tokenizer: str
    tokenizer_sha256: str


class SetIndex(Described):
    """index.json: what all samples have in common, and the facts of each shard."""

    format_version: Literal[FORMAT_VERSION]  # type: ignore[valid-type]
    split: str
    text_storage: Literal["embeddings", "token_ids"]
    shapes: Annotated[SampleShapes, AfterValidator(possible)]
    samples: Count
    prompts: Count
    size: Count
    listed_samples: Count
    quarantined: dict[str, LeftOut]
    dropped_captions: dict[str, LeftOut]
    scaling_factor: Annotated[FiniteFloat, Field(gt=0)]
    measured_scaling_factor: FiniteFloat
    autoencoder: Identity
    text_encoder: TextIdentity
    tokens: TokenFrame
    null_prompt_embeds_sha256: str
    shards: list[ShardFacts]

    @property
    def has_embeddings(self) -> bool:
        return self.text_storage == "embeddings"

    @property
    def settings(self) -> dict[str, Any]:
        """As the shards' done-marks must have them, as far as index.json knows."""
        return {
            "data.split": self.split,
            "data.text_storage": self.text_storage,
            "model.sample_size": self.shapes.sample_size,
            "model.num_text_tokens": self.shapes.num_text_tokens,
            "encoders.autoencoder": self.autoencoder.sha256,
            "encoders.text_encoder": self.text_encoder.sha256,
            "encoders.tokenizer": self.text_encoder.tokenizer_sha256,
        }


class ListedShard(Described):
    """A shard's part of the listing."""

    samples: Count
    sha256: str


class ListingDescription(Described):
    """What of listing.json the shards are compared with."""

    samples: Count
    dropped_captions: dict[str, LeftOut]
    shards: list[ListedShard]
