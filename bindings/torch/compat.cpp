// libstdc++'s reference counts read this flag of glibc 2.32; our own copy lets the ops load on older systems.
extern "C" {
extern __attribute__((visibility("hidden"))) char __libc_single_threaded;
char __libc_single_threaded = 0;
}
