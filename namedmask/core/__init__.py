"Small things every stage leans on: clear errors, files that are whole or absent, folders that are ours, locks, seeds, stages that continue."
from namedmask.core.bars import progress
from namedmask.core.claims import LOCK, RECORD, claim, in_the_way
from namedmask.core.context import Ctx
from namedmask.core.errors import NamedMaskError, explain_write, is_probability
from namedmask.core.files import (JsonLines, atomic_path, check_regular, parse_json, read_bytes, read_json, read_lines, write_json,
    write_text)
from namedmask.core.locks import PATIENCE, begin_worker, end_with_parent, locked
from namedmask.core.owned import (OurFiles, OwnFolder, empty_own, is_ours, own_folder, owned_files, refuse_foreign, remove_own,
    sweep)
from namedmask.core.paths import cache_dir, safe_join, slug
from namedmask.core.seeds import rng_of, seed_of
from namedmask.core.settings import REVISION, Named, Settings
from namedmask.core.stage import Stage, map_stage, settings_key

__all__ = [
    'Ctx', 'JsonLines', 'LOCK', 'Named', 'NamedMaskError', 'OurFiles', 'OwnFolder', 'PATIENCE', 'RECORD',
    'REVISION', 'Settings', 'Stage', 'atomic_path', 'begin_worker', 'cache_dir',
    'check_regular', 'claim',
    'empty_own', 'end_with_parent', 'explain_write', 'in_the_way', 'is_ours', 'is_probability', 'locked',
    'map_stage', 'own_folder', 'owned_files', 'parse_json', 'progress', 'read_bytes', 'read_json', 'read_lines',
    'refuse_foreign', 'remove_own', 'rng_of', 'safe_join', 'seed_of', 'settings_key', 'slug', 'sweep', 'write_json',
    'write_text']
