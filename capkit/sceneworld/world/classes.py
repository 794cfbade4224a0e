"""Class names of single objects, for zero-shot classification."""

from capkit.sceneworld.world.options import WorldOptions


def color_shape_classes(options: WorldOptions | None = None) -> list[str]:
    """One line per (colour, shape) of the world, including held-out pairs: label, tab, phrase with article.

    The label is "{scene[objects][0][color]} {scene[objects][0][shape]}" of a picture with one object.
    """
    names = [f"{color} {shape}" for shape, color in (options or WorldOptions()).all_pairs]
    return [f"{name}\t{'an' if name[0] in 'aeiou' else 'a'} {name}" for name in names]
