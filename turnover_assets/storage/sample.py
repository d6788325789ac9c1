"""Writing a synthetic retailer's files.

What belongs here: files of core/samples.py, written to a folder. What does not: what is in them.
"""

from pathlib import Path

from turnover_assets.errors import TurnoverError


def write_files(folder: Path, files: dict[str, bytes]) -> list[Path]:
    """Write files into a folder, which is made; an existing file with other content is never replaced.

    Raises:
        TurnoverError: A file of that name with other content is there, and nothing was written; or the
            folder cannot be written.
    """
    paths = {folder / name: content for name, content in files.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, content in paths.items():
            if path.exists() and path.read_bytes() != content:
                raise TurnoverError(
                    f"{path} exists with other content and is left as it is. Choose an empty folder (for the "
                    "demo, another TURNOVER_HOME)."
                )
        for path, content in paths.items():
            path.write_bytes(content)
    except OSError as error:
        raise TurnoverError(
            f"The sample cannot be written to {folder} ({error.strerror}). Choose another folder."
        ) from error
    return list(paths)
