// SPDX-License-Identifier: Apache-2.0
#include "replication/block_digest.hpp"

#include <openssl/evp.h>

#include <algorithm>
#include <memory>

namespace gemel::replication {

namespace {

constexpr std::size_t kSha256Bytes = 32;

struct FreeDigest {
    void operator()(EVP_MD* d) const { EVP_MD_free(d); }
    void operator()(EVP_MD_CTX* c) const { EVP_MD_CTX_free(c); }
};

}  // namespace

std::vector<BlockDigest> digests_of(const Slice& data) {
    const std::unique_ptr<EVP_MD, FreeDigest> sha256(EVP_MD_fetch(nullptr, "SHA256", nullptr));
    const std::unique_ptr<EVP_MD_CTX, FreeDigest> context(EVP_MD_CTX_new());
    CHECK(sha256 && context);
    std::vector<BlockDigest> out(data.blocks().size(), kUnreadableDigest);
    for (std::size_t i = 0; i < out.size(); ++i) {
        if (data.blocks()[i].status == BlockStatus::kUnreadable) {
            continue;
        }
        const ConstBytes block = data.block_data(i);
        std::array<unsigned char, kSha256Bytes> whole{};
        CHECK(EVP_DigestInit_ex2(context.get(), sha256.get(), nullptr) == 1 &&
              EVP_DigestUpdate(context.get(), block.data(), block.size()) == 1 &&
              EVP_DigestFinal_ex(context.get(), whole.data(), nullptr) == 1);
        std::ranges::copy(std::as_bytes(std::span(whole)).first<sizeof(BlockDigest)>(), out[i].begin());
    }
    return out;
}

std::string encode_digests(const std::vector<BlockDigest>& digests) {
    std::string body;
    body.reserve(digests.size() * sizeof(BlockDigest));
    for (const BlockDigest& d : digests) {
        body += as_text(d);
    }
    return body;
}

Result<std::vector<BlockDigest>> decode_digests(std::string_view body, std::size_t blocks) {
    if (body.size() != blocks * sizeof(BlockDigest)) {
        return fail(Errc::kProtocol, "an answer with another number of digests than was asked for");
    }
    std::vector<BlockDigest> out(blocks);
    for (std::size_t i = 0; i < blocks; ++i) {
        std::ranges::copy(as_bytes_of(body.substr(i * sizeof(BlockDigest), sizeof(BlockDigest))), out[i].begin());
    }
    return out;
}

}  // namespace gemel::replication
