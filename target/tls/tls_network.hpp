// SPDX-License-Identifier: Apache-2.0
// TlsNetwork: the network between the nodes of pairs, over another one: TLS 1.3 with a pre-shared key for each peer.
//
// Invariants:
//   TL1 Not a byte of the user's is read or written on a stream before both sides have proven that they hold the key.
//   TL2 peer_identity() is the name of the peer whose key that was.
//   TL3 The handshake takes place in the first read or write; listening and accepting never wait for a peer.
//   TL4 What a peer sends costs a fixed amount of memory: one record is held at most.
// Threads: as of Network; a stream belongs to one executor at a time.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "gemel/stream.hpp"
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
    /// `node`: this one's name. REQUIRES: `below` outlives it, and it outlives its streams and listeners.
    TlsNetwork(Network& below, std::string node, std::vector<TlsPeer> peers);
    ~TlsNetwork() override;

    Result<std::unique_ptr<Listener>> listen(std::string_view address) override;
    /// Errors also: kNotFound: no peer has that address.
    Task<Result<std::unique_ptr<Stream>>> connect(std::string address, std::int64_t timeout_ms) override;

  private:
    Network& below_;
    std::unique_ptr<TlsContext> context_;
};

}  // namespace gemel::tls
