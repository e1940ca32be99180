"""The sources of a result, in words and as BibTeX."""

from __future__ import annotations

from collections.abc import Iterable

from onnx_analog.channels import Channel
from onnx_analog.html.page import Reference

PAPER = "Isik et al., Noisy Neural Network Compression for Analog Storage Devices (2020)"
_BIBTEX = {  # by the citation of a channel, up to what it adds
    PAPER: """@inproceedings{isik2020noisy,
  title = {Noisy Neural Network Compression for Analog Storage Devices},
  author = {Isik, Berivan and Zheng, Xin and Choi, Kristy and Wong, H.-S. Philip and Ermon, Stefano and
            Weissman, Tsachy and Alaghi, Armin},
  booktitle = {NeurIPS 2020 workshops},
  year = {2020}
}""",
    "Zarcone et al.": """@article{zarcone2020analog,
  title = {Analog Coding in Emerging Memory Systems},
  author = {Zarcone, Ryan V. and others},
  journal = {Scientific Reports},
  volume = {10},
  year = {2020}
}""",
    "R. Zarcone, CAEs, Partial_Reset_PCM (2017)": """@misc{zarcone2017partial,
  title = {{CAEs}, {Partial\\_Reset\\_PCM}},
  author = {Zarcone, R.},
  year = {2017}
}""",
    "Le Gallo et al., Nature Electronics 6 (2023)": """@article{legallo2023mixed,
  title = {A 64-core mixed-signal in-memory compute chip based on phase-change memory for deep neural network
           inference},
  author = {Le Gallo, Manuel and others},
  journal = {Nature Electronics},
  volume = {6},
  year = {2023}
}""",
    "Nandakumar et al., IEEE ICECS (2019)": """@inproceedings{nandakumar2019phase,
  title = {Phase-Change Memory Models for Deep Learning Training and Inference},
  author = {Nandakumar, S. R. and others},
  booktitle = {IEEE International Conference on Electronics, Circuits and Systems (ICECS)},
  year = {2019}
}""",
    "Wan et al., Nature 608 (2022)": """@article{wan2022compute,
  title = {A compute-in-memory chip based on resistive random-access memory},
  author = {Wan, Weier and others},
  journal = {Nature},
  volume = {608},
  year = {2022}
}""",
    "Milo et al., IEEE IRPS (2021)": """@inproceedings{milo2021optimized,
  title = {Optimized programming algorithms for multilevel {RRAM} in hardware neural networks},
  author = {Milo, Valerio and others},
  booktitle = {IEEE International Reliability Physics Symposium (IRPS)},
  year = {2021}
}""",
}  # fmt: skip
_SPECIAL = str.maketrans({character: f"\\{character}" for character in "{}%&#_$"} | {"\\": "", "~": " ", "^": ""})


def references(channels: Iterable[Channel] = ()) -> tuple[Reference, ...]:
    """Return the paper, and the sources of channels: each once."""
    listed = [Reference(f"The scheme: {PAPER}.", bibtex_of(PAPER))]
    for channel in channels:
        source = channel.source
        left_out = f" Left out: {source.left_out}" if source.left_out else ""
        text = f"The channel {channel}: {str(source).rstrip('.')}.{left_out}"
        listed.append(Reference(text, bibtex_of(source.citation)))
    return tuple(dict.fromkeys(listed))


def bibtex_of(citation: str) -> str:
    """Return the entry of a citation; one that is not known is a note.

    >>> print(bibtex_of("our own reads"))
    @misc{channel,
      note = {our own reads}
    }
    """
    for known, entry in _BIBTEX.items():
        if citation == known or citation.startswith(f"{known}, "):
            return entry
    return f"@misc{{channel,\n  note = {{{citation.translate(_SPECIAL)}}}\n}}"
