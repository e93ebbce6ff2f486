// SPDX-License-Identifier: Apache-2.0
// What a test binary asks of the address sanitizer: stacks of three frames where memory is allocated and freed, and
// less of what was freed kept back. That halves what a history takes, which allocates some 100,000 times. Whoever needs
// more stack runs it again with ASAN_OPTIONS=malloc_context_size=30, which wins. Threads: any.
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
extern "C" const char* __asan_default_options();
const char* __asan_default_options() {
    return "malloc_context_size=3:quarantine_size_mb=16:thread_local_quarantine_size_kb=64:max_malloc_fill_size=0";
}
#endif
#endif
