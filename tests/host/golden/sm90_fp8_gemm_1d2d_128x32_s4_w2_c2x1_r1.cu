#include "kernels/sm90_fp8_gemm.cuh"

template <>
struct deep_gemm::ptx::WgmmaFp8<32> {
    template <typename A, typename B>
    static DG_DEVICE void mma_async(float (&d)[16], A a, int a_bytes, B b, int b_bytes) {
        asm volatile(
            "{\n"
            ".reg .pred sets, adds;\n"
            "setp.ne.b32 sets, 0, 0;\n"
            "setp.eq.b32 adds, 0, 0;\n"
            "wgmma.mma_async.sync.aligned.m64n32k32.f32.e4m3.e4m3 {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}, %16, %17, sets, 1, 1;\n"
            "wgmma.mma_async.sync.aligned.m64n32k32.f32.e4m3.e4m3 {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}, %18, %19, adds, 1, 1;\n"
            "wgmma.mma_async.sync.aligned.m64n32k32.f32.e4m3.e4m3 {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}, %20, %21, adds, 1, 1;\n"
            "wgmma.mma_async.sync.aligned.m64n32k32.f32.e4m3.e4m3 {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}, %22, %23, adds, 1, 1;\n"
            "}"
            : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15])
            : "l"(a.at(a_bytes + 0)), "l"(b.at(b_bytes + 0)), "l"(a.at(a_bytes + 32)), "l"(b.at(b_bytes + 32)), "l"(a.at(a_bytes + 64)), "l"(b.at(b_bytes + 64)), "l"(a.at(a_bytes + 96)), "l"(b.at(b_bytes + 96)));
    }

    template <int kPending>
    static DG_DEVICE void wait_group(float (&d)[16]) {
        asm volatile("wgmma.wait_group.sync.aligned %16;"
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15])
                     : "n"(kPending)
                     : "memory");
    }
};

constexpr deep_gemm::GemmConfig kConfig{.block_m = 128, .block_n = 32, .num_stages = 4, .num_math_warpgroups = 2, .cluster_m = 2, .cluster_n = 1, .cluster_k = 1, .num_store_rounds = 1, .grouping = deep_gemm::Grouping::kDense, .gran_n = 128, .d_bytes = 2};

static_assert(sizeof(deep_gemm::SharedStorage<kConfig>) == 95232);
static_assert(sizeof(deep_gemm::GemmArguments) == 832);
static_assert(sizeof(deep_gemm::BlockSlot) == 44);
static_assert(kConfig.num_accumulators() == 1);
static_assert(kConfig.num_threads() == 384);
static_assert(kConfig.d_swizzle_bytes() == 64);

extern "C" __global__ void __launch_bounds__(384, 1)
    sm90_fp8_gemm_1d2d(const __grid_constant__ deep_gemm::GemmArguments args) {
    deep_gemm::sm90_fp8_gemm<kConfig>(args);
}
