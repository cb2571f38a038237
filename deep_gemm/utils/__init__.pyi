from deep_gemm.utils import dist as dist
from deep_gemm.utils import layout as layout
from deep_gemm.utils import math as math
from deep_gemm.utils.dist import init_dist as init_dist
from deep_gemm.utils.dist import uneven_all_gather as uneven_all_gather
from deep_gemm.utils.layout import *
from deep_gemm.utils.math import *
