// SPDX-License-Identifier: Apache-2.0
// TlsNetwork: the network between the nodes of pairs, over another one: TLS 1.3 with a pre-shared key for each peer.
//
// Invariants:
//   TL1 Not a byte of the user's is read or written on a stream before both sides have proven that they hold the key.
//   TL2 peer_identity() is the name of the peer whose key that was.
//   TL3 The handshake takes place in the first read or write; listening and accepting never wait for a peer.
//   TL4 What a peer sends costs a fixed amount of memory: one read of 64 KiB is held at most.
//   TL5 A key encrypts no more than `rekey_bytes` (RFC 8446 §5.5 allows some 380 GiB), however long a stream lives.
// Threads: as of Network; a stream belongs to one executor at a time.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "gemel/stream.hpp"
#include "gemel/units.hpp"
#include "target/tls/pair_key.hpp"

namespace gemel::tls {

struct TlsPeer {
    std::string node;
    std::string address;  ///< at which it is dialled
    PairKey key{};
};

class TlsContext;

class TlsNetwork final : public Network {
  public:
    static constexpr std::uint64_t kRekeyBytes = 64 * kGiB;

    /// `node`: this one's name. REQUIRES: `below` outlives it, and it outlives its streams and listeners.
    TlsNetwork(Network& below, std::string node, std::vector<TlsPeer> peers, std::uint64_t rekey_bytes = kRekeyBytes);
    ~TlsNetwork() override;

    Result<std::unique_ptr<Listener>> listen(std::string_view address) override;
    /// Errors also: kNotFound: no peer has that address.
    Task<Result<std::unique_ptr<Stream>>> connect(std::string address, std::int64_t timeout_ms) override;

  private:
    Network& below_;
    std::unique_ptr<TlsContext> context_;
};

}  // namespace gemel::tls
