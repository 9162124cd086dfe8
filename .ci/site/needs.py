"Prints what the site needs: `docs_requirements` of settings.ini."
from configparser import ConfigParser
from pathlib import Path

ini = ConfigParser(delimiters=['='])
ini.read(Path(__file__).resolve().parent.parent.parent/'settings.ini', encoding='utf-8')
print(*ini['DEFAULT']['docs_requirements'].split())
