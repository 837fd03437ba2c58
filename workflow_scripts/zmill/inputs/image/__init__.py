"""Everything that depends on images: stamps in files, conversion, apertures, flags and masking."""

from zmill.inputs.image.kind import ImageKind

KIND = ImageKind
