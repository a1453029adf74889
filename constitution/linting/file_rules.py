"""The rules that loading itself keeps: with one of these, no command takes the file. Their ids are given where they are found,
in `constitution.listing`, `reading`, `composing`, `documents`, `explaining` and `templating`; here they are explained.
"""

from __future__ import annotations

from constitution.linting.rules import Example, Rule

_WHOLE = "  - id: kind\n    principle: Be kind.\n    tests:\n      - {prompt: Hi, better: Hello., worse: Go.}\n"
_PARAMETER = "principle: Answer in at most {} words.\nparameters: {{words: 20}}"

RULES = (
    Rule(
        "C101",
        "there is no such file",
        "Paths are files, folders, `shipped` or `shipped:NAME`.",
        situation="The path names no file, the folder holds no principle files, or there is no such shipped file.",
    ),
    Rule(
        "C102",
        "a file that cannot be read",
        "A principle file is a plain file of at most 4 MB that you have the right to read.",
        situation="A file without the right to read it, a pipe, or a file of 10 MB.",
    ),
    Rule(
        "C103",
        "not a text",
        "Principle files are UTF-8 text; control characters could steer a terminal.",
        Example("principle: Be\x07 kind.", "principle: Be kind."),
    ),
    Rule(
        "C104",
        "nothing in the file",
        "An empty constitution is more likely a slip than meant.",
        Example("# to do\n", "principles:\n" + _WHOLE, "yaml"),
    ),
    Rule(
        "C105",
        "not valid YAML",
        "What cannot be parsed cannot be trusted to say what was meant.",
        Example("principle: 'Be kind.", "principle: 'Be kind.'"),
    ),
    Rule(
        "C106",
        "nested too deeply, or too much by aliases",
        "Ten aliases inside each other stand for billions of values, and no principle needs depth.",
        Example("principle: Be kind.\ntests: &all [*all]", "principle: Be kind."),
    ),
    Rule(
        "C107",
        "a key that is given twice",
        "YAML readers let the last one win, without a word.",
        Example("principle: Be kind.\nprinciple: Be brief.", "principle: Be kind."),
    ),
    Rule(
        "C108",
        "an id that is used twice",
        "Every record names its principle by its id, over all files of a constitution.",
        Example(
            "- id: kind\n  principle: Be kind.\n  tests:\n    - {prompt: Hi, better: Hello., worse: Go.}\n"
            "- id: kind\n  principle: Speak of what you know.\n  tests:\n    - {prompt: Hi, better: Hello., worse: Go.}",
            "- id: kind\n  principle: Be kind.\n  tests:\n    - {prompt: Hi, better: Hello., worse: Go.}\n"
            "- id: modest\n  principle: Speak of what you know.\n  tests:\n    - {prompt: Hi, better: Hello., worse: Go.}",
        ),
    ),
    Rule(
        "C109",
        "an unknown key",
        "A misspelt key would silently be no key.",
        Example("principle: Be kind.\nweigth: 2", "principle: Be kind.\nweight: 2"),
    ),
    Rule(
        "C110",
        "a key that is missing",
        "A principle needs `id` and `principle`; a test `prompt`, `better` and `worse`; a demonstration `prompt`, `draft` and "
        "`critique`. An id can be made from the text.",
        Example(
            "- principle: Be kind.\n  tests:\n    - {prompt: Hi, better: Hello., worse: Go.}",
            "- id: be-kind\n  principle: Be kind.\n  tests:\n    - {prompt: Hi, better: Hello., worse: Go.}",
        ),
        fixable=True,
    ),
    Rule(
        "C111",
        "an empty value",
        "What is left out is left out by deleting its key.",
        Example("principle: Be kind.\ncritique_request: ''", "principle: Be kind."),
    ),
    Rule(
        "C112",
        "a text that is too long",
        "Texts that reach a prompt have at most 4,000 characters; `rationale` and descriptions, which do not, 40,000.",
        Example("principle: " + "Be kind. " * 444 + "Be kind.", "principle: Be kind."),
    ),
    Rule(
        "C113",
        "a value of the wrong kind",
        "A list where a text belongs, or the reverse.",
        Example("principle: [Be kind.]", "principle: Be kind."),
    ),
    Rule(
        "C114",
        "an id or a name that is not a proper one",
        "Ids stand in records, file names and commands. Parameters are names in a template.",
        Example(
            "- id: Be Kind\n  principle: Be kind.\n  tests:\n    - {prompt: Hi, better: Hello., worse: Go.}",
            "- id: be-kind\n  principle: Be kind.\n  tests:\n    - {prompt: Hi, better: Hello., worse: Go.}",
        ),
        fixable=True,
    ),
    Rule(
        "C115",
        "an invalid tag",
        "Tags are matched by the letter with those of the prompts: lower-case words joined by hyphens.",
        Example("principle: Be kind.\napplies_to: [Hard Questions]", "principle: Be kind.\napplies_to: [hard-questions]"),
    ),
    Rule(
        "C116",
        "a value out of range",
        "A weight is above 0 and at most 1,000.",
        Example("principle: Be kind.\nweight: 0", "principle: Be kind.\nweight: 0.5"),
    ),
    Rule(
        "C117",
        "a text that YAML reads as something else",
        "YAML reads yes, no, on and off as booleans, and 12 or 2024-01-01 as no text either. Quotes make them texts.",
        Example(
            "principle: Be kind.\ntests:\n  - {prompt: Is it far?, better: no, worse: Go and look.}",
            'principle: Be kind.\ntests:\n  - {prompt: Is it far?, better: "no", worse: Go and look.}',
        ),
        fixable=True,
    ),
    Rule(
        "C118",
        "a bullet inside a bullet",
        "It could be a principle of its own, or part of the one above: nobody can tell.",
        Example("- Be kind:\n  - to dogs\n", "- Be kind.\n- Be kind to dogs.\n", "markdown"),
    ),
    Rule(
        "C119",
        "a Markdown file without bullets, or with far too many",
        "Each bullet is one principle.",
        Example("Be kind.\n", "- Be kind.\n", "markdown"),
    ),
    Rule(
        "C120",
        "a link that leaves its folder",
        "Who hands over a folder of principles means what lies in it; a link could bring in any file of the machine. Links "
        "inside the folder are followed, and so is a link that is named itself.",
        situation="`principles/private.yaml` is a link to `/home/me/notes.yaml`, or to nothing.",
    ),
    Rule(
        "C121",
        "a template that does not parse",
        "Texts are templates: `{{ name }}` stands for a parameter.",
        Example(_PARAMETER.format("{{ words"), _PARAMETER.format("{{ words }}")),
    ),
    Rule(
        "C122",
        "an unknown name in a template",
        "Only the principle's own `parameters` can be filled in.",
        Example(_PARAMETER.format("{{ word }}"), _PARAMETER.format("{{ words }}")),
    ),
    Rule(
        "C123",
        "a forbidden construct in a template",
        "Names, a few filters and `{% if %}` are all that a prompt needs. Loops, attributes, imports, macros, products and "
        "calls could reach into the program or fill its memory.",
        Example(_PARAMETER.format("{{ words.real }}"), _PARAMETER.format("{{ words }}")),
    ),
    Rule(
        "C124",
        "a template that is too large",
        "What a template may hold, nest and write is bounded, so that no principle can stall a run.",
        Example(_PARAMETER.format("{{ words" + " + words" * 60 + " }}"), _PARAMETER.format("{{ words }}")),
    ),
    Rule(
        "C125",
        "a template that cannot be rendered with its own parameters",
        "It would fail in the middle of a run instead.",
        Example(_PARAMETER.format("{{ words + 'x' }}"), _PARAMETER.format("{{ words ~ 'x' }}")),
    ),
)
