from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from asmkit.nn import Recipe
from asmkit.nn.recipe import parse_settings, shipped_recipes


def test_reading_what_was_written_gives_the_recipe(tmp_path: Path) -> None:
    recipe = Recipe(epochs=3, alpha="to-zero", asm_components=12, rotation=0.1)
    path = tmp_path / "recipe.toml"
    path.write_text(recipe.to_toml())
    assert Recipe.read(path) == recipe


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipes_are_sound(name: str) -> None:
    assert isinstance(Recipe.read(name), Recipe)


def test_changes_replace_what_the_file_says() -> None:
    assert Recipe.read("asmnet", epochs=2).epochs == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs = -1", "epochs is -1"),
        ("epochs = 'many'", "expected int"),
        ("epochs = true", "expected int"),
        ("batchsize = 3", "unknown key 'batchsize'"),
        ("mirror = 1.5", "mirror is 1.5"),
        ("precision = 'half'", "precision"),
        ("input_size = 8", "expected 32 to 1024"),
        ("batch_size = 1", "expected 2 to"),
        ("rotation = nan", "rotation is nan"),
        ("rotation = inf", "rotation is inf"),
        ("pose_weight = -1", "pose_weight is -1"),
        ("alpha = 'halves'", "thirds, to-zero, none"),
        ("loss_form = 'cubed'", "printed, squared, wing, soft-wing"),
        ("asm_align = 'none'", "similarity, box"),
        ("shortcut = 'sum'", "concat, add, none"),
        ("head = 'heatmap'", "auto, integral, regression, pooled, spatial, shape"),
        ("heatmap = 'lines'", "boundary, points, none"),
        ("pose_form = 'quaternion'", "euler, 6d"),
        ("negatives = 1.5", "negatives is 1.5"),
        ("asm_warp = 1.1", "asm_warp is 1.1, expected 0 to 1"),
        ("asm_warp_size = 4", "asm_warp_size is 4, expected 0 to 3"),
        ("head_epochs = -1", "head_epochs is -1"),
        ("epochs = [", "not a TOML file"),
    ],
)
def test_a_broken_recipe_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        Recipe.read(path)


def test_missing_and_binary_recipes(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="asmnet"):
        Recipe.read("no-such-recipe")
    path = tmp_path / "recipe.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not a text file"):
        Recipe.read(path)


def test_settings_are_toml_values_or_words() -> None:
    assert parse_settings(["rotation=3.5", "alpha=to-zero", 'arch="asmnet"', "epochs = 4"]) == {
        "rotation": 3.5,
        "alpha": "to-zero",
        "arch": "asmnet",
        "epochs": 4,
    }
    with pytest.raises(ValueError, match="KEY=VALUE"):
        parse_settings(["rotation"])


def test_a_recipe_is_a_value() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Recipe().epochs = 3  # type: ignore[misc]
