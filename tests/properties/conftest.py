import sys
from pathlib import Path

# The model is a module beside the tests, and the importlib mode of pytest puts no
# folder on the path.
sys.path.insert(0, str(Path(__file__).parent))
