"""The families, by name."""

from conformance.families.cohere import COHERE_V1, COHERE_V2
from conformance.families.infinity import INFINITY
from conformance.families.jina import JINA
from conformance.families.nvidia import NVIDIA
from conformance.families.tei import TEI
from conformance.families.vllm import VLLM, VLLM_SCORE
from conformance.families.voyage import VOYAGE
from conformance.family import Family

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        *(COHERE_V1, COHERE_V2, JINA, VOYAGE),
        *(VLLM, VLLM_SCORE, TEI, INFINITY, NVIDIA),
    )
}
