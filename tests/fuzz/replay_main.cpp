// SPDX-License-Identifier: Apache-2.0
// Runs a fuzz target without libFuzzer: every file of the corpus folders, then a number of mutations of them.
//   NAME_fuzz [--mutations N] [--seed S] FOLDER_OR_FILE ...
// The mutations depend on the seed alone; the input that was running when the program died is left in
// crash-NAME_fuzz in the present directory. A folder that does not exist counts as empty.
// Threads: one.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
/// Of the sanitizers' runtime, which ends the program without a signal; null in a build without one.
extern "C" void __sanitizer_set_death_callback(void (*callback)()) __attribute__((weak));

namespace {

using Input = std::vector<std::uint8_t>;

constexpr std::size_t kMaxInput = 64U * 1024U;

/// splitmix64: all that a mutation needs.
class Dice {
  public:
    explicit Dice(std::uint64_t seed) : state_(seed) {}
    std::uint64_t next() {
        std::uint64_t z = state_ += 0x9e3779b97f4a7c15ULL;
        z = (z ^ (z >> 30U)) * 0xbf58476d1ce4e5b9ULL;
        z = (z ^ (z >> 27U)) * 0x94d049bb133111ebULL;
        return z ^ (z >> 31U);
    }
    std::size_t below(std::size_t n) { return n == 0 ? 0 : next() % n; }

  private:
    std::uint64_t state_;
};

struct Arguments {
    std::uint64_t mutations = 0;
    std::uint64_t seed = 1;
    std::vector<std::filesystem::path> places;
};

Input running;           // what the target is looking at, for save_running
std::string crash_path;  // "crash-" and the program's name

/// Leaves the input that killed the target where it can be replayed. Only calls allowed in a signal handler.
void save_running() {
    const int out = open(crash_path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (out >= 0) {
        [[maybe_unused]] const ssize_t written = write(out, running.data(), running.size());
        close(out);
    }
}

void on_signal(int signal) {
    save_running();
    std::signal(signal, SIG_DFL);
    std::raise(signal);
}

void run(Input input) {
    running = std::move(input);
    // A copy of its own size, so that a sanitizer sees one byte too far.
    const Input exact(running);
    LLVMFuzzerTestOneInput(exact.data(), exact.size());
}

Input read_file(const std::filesystem::path& path) {
    std::ifstream in(path, std::ios::binary);
    Input bytes((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
    bytes.resize(std::min(bytes.size(), kMaxInput));
    return bytes;
}

std::vector<Input> load(const std::vector<std::filesystem::path>& places) {
    std::vector<std::filesystem::path> files;
    for (const auto& place : places) {
        if (std::filesystem::is_directory(place)) {
            for (const auto& entry : std::filesystem::recursive_directory_iterator(place)) {
                if (entry.is_regular_file()) {
                    files.push_back(entry.path());
                }
            }
        } else if (std::filesystem::is_regular_file(place)) {
            files.push_back(place);
        }
    }
    std::ranges::sort(files);
    std::vector<Input> corpus;
    for (const auto& file : files) {
        corpus.push_back(read_file(file));
    }
    return corpus;
}

/// One small change: a bit, a byte, a number at a limit, a piece taken out, put in, doubled, or a splice.
void mutate(Input& input, const std::vector<Input>& corpus, Dice& dice) {
    static constexpr std::uint8_t kEdges[] = {0x00, 0x01, 0x7f, 0x80, 0xfe, 0xff, 0x20, 0x3d};
    const std::size_t at = dice.below(input.size());
    const std::size_t length = std::min(1 + dice.below(16), input.size() - at);
    const auto first = input.begin() + static_cast<std::ptrdiff_t>(at);
    switch (input.empty() ? 3 : dice.below(7)) {
        case 0:
            input[at] ^= static_cast<std::uint8_t>(1U << dice.below(8));
            break;
        case 1:
            input[at] = static_cast<std::uint8_t>(dice.next());
            break;
        case 2:
            std::fill_n(first, std::min<std::size_t>(length, 1U << dice.below(4)),
                        kEdges[dice.below(std::size(kEdges))]);
            break;
        case 3:
            for (std::size_t n = 1 + dice.below(16); n > 0; --n) {
                input.insert(input.begin() + static_cast<std::ptrdiff_t>(at), static_cast<std::uint8_t>(dice.next()));
            }
            break;
        case 4:
            input.erase(first, first + static_cast<std::ptrdiff_t>(length));
            break;
        case 5: {
            const Input piece(first, first + static_cast<std::ptrdiff_t>(length));
            input.insert(input.begin() + static_cast<std::ptrdiff_t>(at), piece.begin(), piece.end());
            break;
        }
        default: {
            const Input& other = corpus[dice.below(corpus.size())];
            const std::size_t from = dice.below(other.size());
            input.resize(at);
            input.insert(input.end(), other.begin() + static_cast<std::ptrdiff_t>(from), other.end());
        }
    }
    input.resize(std::min(input.size(), kMaxInput));
}

bool parse(int argc, char** argv, Arguments& out) {
    for (int i = 1; i < argc; ++i) {
        const std::string_view word = argv[i];
        if (word == "--mutations" || word == "--seed") {
            if (++i == argc) {
                return false;
            }
            (word == "--seed" ? out.seed : out.mutations) = std::strtoull(argv[i], nullptr, 10);
        } else if (word.starts_with("-")) {
            return false;
        } else {
            out.places.emplace_back(word);
        }
    }
    return true;
}

}  // namespace

int main(int argc, char** argv) {
    Arguments arguments;
    if (!parse(argc, argv, arguments)) {
        std::fprintf(stderr, "usage: %s [--mutations N] [--seed S] FOLDER_OR_FILE ...\n", argv[0]);
        return 2;
    }
    crash_path = "crash-" + std::filesystem::path(argv[0]).filename().string();
    for (const int signal : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL}) {
        std::signal(signal, on_signal);
    }
    if (__sanitizer_set_death_callback != nullptr) {
        __sanitizer_set_death_callback(save_running);
    }
    std::vector<Input> corpus = load(arguments.places);
    const std::size_t files = corpus.size();
    corpus.emplace_back();
    for (const Input& input : corpus) {
        run(input);
    }
    Dice dice(arguments.seed);
    for (std::uint64_t i = 0; i < arguments.mutations; ++i) {
        Input input = corpus[dice.below(corpus.size())];
        for (std::size_t n = 1 + dice.below(6); n > 0; --n) {
            mutate(input, corpus, dice);
        }
        run(std::move(input));
    }
    std::printf("%zu files of the corpus and %llu mutations (seed %llu): no failure\n", files,
                static_cast<unsigned long long>(arguments.mutations), static_cast<unsigned long long>(arguments.seed));
    return 0;
}
