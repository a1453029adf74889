"""What a constitution is: principle files, their prompts, and which principle is used when. Starts in milliseconds."""

from constitution.errors import ConstitutionError, PrincipleFileError
from constitution.messages import Conversation, Message
from constitution.schema import Constitution, Demonstration, Principle, PrincipleTest

__all__ = [
    "Constitution",
    "ConstitutionError",
    "Conversation",
    "Demonstration",
    "Message",
    "Principle",
    "PrincipleFileError",
    "PrincipleTest",
]
