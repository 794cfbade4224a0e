"""Where a picture comes to lie in the square that a model sees, and with it the boxes of its regions."""

from dataclasses import dataclass

Box = tuple[float, float, float, float]  # x0, y0, x1, y1, as shares of width and height


@dataclass(frozen=True)
class Placement:
    """A part of a picture, the size that it is resized to, and the place in the square where that is laid.

    All in pixels of the picture at its full size, whatever size it was decoded at, or of the square. What of the
    resized part lies outside of the square is cut off.
    """

    full_size: tuple[int, int]  # height and width of the picture
    top: int
    left: int
    part: tuple[int, int]  # height and width of the part that is taken, whose first row and column are top and left
    resized: tuple[int, int]  # height and width that the part is resized to
    square: int  # height and width of the square
    down: int = 0  # row of the square where the resized part begins; negative: so many rows are cut off
    right: int = 0
    mirrored: bool = False  # left to right, the whole square, at last

    def box(self, box: Box, min_visible: float = 0.0) -> Box | None:
        """The box in the square of what `box` holds in the picture, cut at the edges of what is seen of the picture.

        None if less than `min_visible` of its area is left, or nothing.
        """
        height, width = self.full_size
        x = self._along(box[0] * width, box[2] * width, self.left, self.part[1], self.resized[1], self.right)
        y = self._along(box[1] * height, box[3] * height, self.top, self.part[0], self.resized[0], self.down)
        (x0, x1, share_of_width), (y0, y1, share_of_height) = x, y
        share = share_of_width * share_of_height
        if share <= 0 or share < min_visible:
            return None
        return (1 - x1, y0, 1 - x0, y1) if self.mirrored else (x0, y0, x1, y1)

    def back(self, box: Box) -> Box:
        """Where a box of the square lies in the picture, cut at the edges of what is seen of it.

        Without area, at such an edge, if it shows nothing of the picture.
        """
        x0, y0, x1, y1 = (1 - box[2], box[1], 1 - box[0], box[3]) if self.mirrored else box
        (height, width), (rows, columns) = self.full_size, self.part

        def along(edge: float, first: int, length: int, resized: int, offset: int, full: int) -> float:
            place = (edge * self.square - offset) * length / resized
            return (first + min(max(place, 0), length)) / full

        across = (self.left, columns, self.resized[1], self.right, width)
        down = (self.top, rows, self.resized[0], self.down, height)
        return along(x0, *across), along(y0, *down), along(x1, *across), along(y1, *down)

    def _along(
        self, start: float, end: float, first: int, length: int, resized: int, offset: int
    ) -> tuple[float, float, float]:
        """Start and end in the square, cut at its edges and at those of the part, and the share that is left."""
        scale = resized / length
        whole = [(edge - first) * scale + offset for edge in (start, end)]
        lowest, highest = max(0, offset), min(self.square, offset + resized)
        seen = [min(max(edge, lowest), highest) for edge in whole]
        share = (seen[1] - seen[0]) / (whole[1] - whole[0]) if whole[1] > whole[0] else 0.0
        return seen[0] / self.square, seen[1] / self.square, share
