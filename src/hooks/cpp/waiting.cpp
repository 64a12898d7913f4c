// How OpenMP's threads wait. By default libgomp's threads spin for milliseconds before they sleep,
// which takes the processor from whoever has work if cores are shared: on two cores, beside two
// busy loops, a run of 64 images took 30 to 94 s, and takes 4 to 6 s with short spinning (2.2 s
// alone, as with the default).

#include <cstdlib>

namespace {

constexpr const char *spins = "300";

// libgomp reads the environment when it is loaded, so this runs before any library starts.
void wait_briefly(int, char **, char **) {
  if (!getenv("OMP_WAIT_POLICY") && !getenv("GOMP_SPINCOUNT"))
    setenv("GOMP_SPINCOUNT", spins, 1);
}

#ifdef __linux__
__attribute__((section(".preinit_array"), used)) void (*const before_libraries)(int, char **, char **) =
    wait_briefly;
#endif

} // namespace
