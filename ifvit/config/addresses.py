"""Addresses of folders elsewhere, such as s3://bucket/folder. They may carry a password or a signature:
https://user:password@host/folder?sig=...
"""

import re


def is_address(location: str) -> bool:
    """Whether `location` is no path of this machine."""
    return "://" in location


def address_in(folder: str, name: str) -> str:
    """The address of `name` in the folder at an address, with the same signature."""
    path, mark, query = folder.partition("?")
    return f"{path.rstrip('/')}/{name}{mark}{query}"


def public_text(text: str) -> str:
    """`text` with all addresses in it as they may be kept and shown: without passwords and signatures."""
    without_user = re.sub(r"(\w://)[^\s/?#]*@", r"\1", text)
    return re.sub(r"(\w://[^\s?#]*)[?#]\S*", r"\1", without_user)
