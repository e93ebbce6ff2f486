// SPDX-License-Identifier: Apache-2.0
#include "target/tls/tls_network.hpp"

#include <openssl/err.h>
#include <openssl/ssl.h>

#include <algorithm>
#include <optional>

#include "gemel/sync.hpp"

namespace gemel::tls {

namespace {

constexpr std::size_t kReadBytes = 64 * 1024;
constexpr std::size_t kSendBytes = 256 * 1024;  ///< encrypted at a time
constexpr const char* kCipher = "TLS_AES_128_GCM_SHA256";
constexpr std::array<unsigned char, 2> kCipherId{0x13, 0x01};

struct SslFree {
    void operator()(SSL* s) const { SSL_free(s); }
    void operator()(SSL_CTX* c) const { SSL_CTX_free(c); }
};
using Ssl = std::unique_ptr<SSL, SslFree>;
using SslContext = std::unique_ptr<SSL_CTX, SslFree>;

/// The oldest error of this thread, which has the cause.
std::string openssl_reason() {
    const unsigned long error = ERR_get_error();
    const char* reason = error != 0 ? ERR_reason_error_string(error) : nullptr;
    ERR_clear_error();
    return reason != nullptr ? reason : "the connection was broken off";
}

/// A session that stands for the key (RFC 8446 §4.2.11, external PSK). Null: out of memory.
SSL_SESSION* session_of(SSL* ssl, const PairKey& key) {
    const SSL_CIPHER* cipher = SSL_CIPHER_find(ssl, kCipherId.data());
    SSL_SESSION* session = SSL_SESSION_new();
    const auto* bytes = reinterpret_cast<const unsigned char*>(key.data());
    if (session != nullptr && cipher != nullptr && SSL_SESSION_set1_master_key(session, bytes, key.size()) == 1 &&
        SSL_SESSION_set_cipher(session, cipher) == 1 &&
        SSL_SESSION_set_protocol_version(session, TLS1_3_VERSION) == 1) {
        return session;
    }
    SSL_SESSION_free(session);
    return nullptr;
}

}  // namespace

/// What all streams of a network share.
class TlsContext {
  public:
    TlsContext(std::string node, std::vector<TlsPeer> peers, std::uint64_t rekey_bytes)
        : node(std::move(node)),
          peers(std::move(peers)),
          rekey_bytes(rekey_bytes),
          context_(SSL_CTX_new(TLS_method())) {
        SSL_CTX* c = context_.get();
        CHECK(c != nullptr && SSL_CTX_set_min_proto_version(c, TLS1_3_VERSION) == 1 &&
              SSL_CTX_set_ciphersuites(c, kCipher) == 1 && SSL_CTX_set_num_tickets(c, 0) == 1);
        SSL_CTX_set_session_cache_mode(c, SSL_SESS_CACHE_OFF);
        SSL_CTX_set_mode(c, SSL_MODE_RELEASE_BUFFERS);
        SSL_CTX_set_psk_use_session_callback(c, &use_session);
        SSL_CTX_set_psk_find_session_callback(c, &find_session);
    }

    [[nodiscard]] SSL_CTX* get() const { return context_.get(); }
    [[nodiscard]] const TlsPeer* find(const std::string& value, std::string TlsPeer::* by) const {
        const auto found = std::ranges::find(peers, value, by);
        return found == peers.end() ? nullptr : &*found;
    }

    const std::string node;
    const std::vector<TlsPeer> peers;
    const std::uint64_t rekey_bytes;

  private:
    static int use_session(SSL* ssl, const EVP_MD* md, const unsigned char** id, std::size_t* id_bytes,
                           SSL_SESSION** session);
    static int find_session(SSL* ssl, const unsigned char* identity, std::size_t bytes, SSL_SESSION** session);

    SslContext context_;
};

namespace {

class TlsStream final : public Stream {
  public:
    /// `peer`: the one that was dialled; null: another node dialled.
    TlsStream(const TlsContext& context, std::unique_ptr<Stream> below, const TlsPeer* peer)
        : context(context), peer(peer), below_(std::move(below)), ssl_(SSL_new(context.get())) {
        CHECK(ssl_ != nullptr);
        BIO* in = BIO_new(BIO_s_mem());
        BIO* out = BIO_new(BIO_s_mem());
        CHECK(in != nullptr && out != nullptr);
        BIO_set_mem_eof_return(in, -1);
        SSL_set_bio(ssl_.get(), in, out);
        SSL_set_app_data(ssl_.get(), this);
        if (peer != nullptr) {
            SSL_set_connect_state(ssl_.get());
            SSL_set_verify(ssl_.get(), SSL_VERIFY_PEER, nullptr);  // no certificate is good: there is no authority
        } else {
            SSL_set_accept_state(ssl_.get());
        }
    }

    Task<Result<std::size_t>> read_some(MutableBytes to) override;
    Task<Result<void>> write(std::span<const ConstBytes> parts) override;
    void close() override { below_->close(); }
    void rebind(Executor& executor) override { below_->rebind(executor); }
    [[nodiscard]] std::string local_address() const override { return below_->local_address(); }
    [[nodiscard]] std::string peer_address() const override { return below_->peer_address(); }
    [[nodiscard]] std::string peer_identity() const override { return ready_ ? peer->node : std::string(); }

    const TlsContext& context;
    const TlsPeer* peer;

  private:
    Task<Result<void>> handshake();
    /// What came from the peer goes to the SSL. False: the peer has closed its side.
    Task<Result<bool>> receive();
    /// What the SSL has for the peer goes there.
    Task<Result<void>> send();
    [[nodiscard]] bool has_output() const { return BIO_ctrl_pending(SSL_get_wbio(ssl_.get())) > 0; }
    [[nodiscard]] std::size_t read_now(MutableBytes to, int& error);

    std::unique_ptr<Stream> below_;
    Ssl ssl_;
    bool ready_ = false;
    std::uint64_t rekeyed_ = 0;  ///< bytes written since the key changed
    std::optional<Error> failed_;
    Mutex handshaking_;  ///< a read and a write may both begin it
    Mutex sending_;      ///< reading may have something to send, too
    std::vector<std::byte> in_;
    std::vector<std::byte> out_;
};

}  // namespace

int TlsContext::use_session(SSL* ssl, const EVP_MD* /*md*/, const unsigned char** id, std::size_t* id_bytes,
                            SSL_SESSION** session) {
    const auto& stream = *static_cast<const TlsStream*>(SSL_get_app_data(ssl));
    *id = reinterpret_cast<const unsigned char*>(stream.context.node.data());
    *id_bytes = stream.context.node.size();
    *session = session_of(ssl, stream.peer->key);
    return *session != nullptr ? 1 : 0;
}

int TlsContext::find_session(SSL* ssl, const unsigned char* identity, std::size_t bytes, SSL_SESSION** session) {
    auto& stream = *static_cast<TlsStream*>(SSL_get_app_data(ssl));
    stream.peer = stream.context.find(std::string(reinterpret_cast<const char*>(identity), bytes), &TlsPeer::node);
    *session = stream.peer != nullptr ? session_of(ssl, stream.peer->key) : nullptr;
    return 1;  // without a session the handshake ends for want of a certificate
}

namespace {

Task<Result<bool>> TlsStream::receive() {
    in_.resize(kReadBytes);
    CO_TRY(const std::size_t n, co_await below_->read_some(in_));
    if (n > 0 && BIO_write(SSL_get_rbio(ssl_.get()), in_.data(), static_cast<int>(n)) != static_cast<int>(n)) {
        co_return fail(Errc::kResources, "no memory for what " + peer_address() + " sent");
    }
    co_return n > 0;
}

Task<Result<void>> TlsStream::send() {
    const auto turn = co_await sending_.lock();
    while (has_output()) {
        out_.resize(BIO_ctrl_pending(SSL_get_wbio(ssl_.get())));
        CHECK(BIO_read(SSL_get_wbio(ssl_.get()), out_.data(), static_cast<int>(out_.size())) ==
              static_cast<int>(out_.size()));
        const std::array<ConstBytes, 1> parts{ConstBytes(out_)};
        CO_TRY_VOID(co_await below_->write(parts));
    }
    co_return Result<void>{};
}

Task<Result<void>> TlsStream::handshake() {
    const auto turn = co_await handshaking_.lock();
    while (!ready_ && !failed_) {
        ERR_clear_error();
        const int done = SSL_do_handshake(ssl_.get());
        const int error = SSL_get_error(ssl_.get(), done);
        const std::string reason = done == 1 || error == SSL_ERROR_WANT_READ ? std::string() : openssl_reason();
        Result<void> r = co_await send();
        if (done == 1) {
            ready_ = r && SSL_session_reused(ssl_.get()) == 1 && peer != nullptr;  // by the key, TL1
            r = ready_ || !r ? std::move(r) : fail(Errc::kRefused, "it was not made by a key");
        } else if (error != SSL_ERROR_WANT_READ) {
            r = fail(Errc::kRefused, reason);
        } else if (r) {
            const Result<bool> more = co_await receive();
            r = !more   ? Result<void>(std::unexpected(more.error()))
                : *more ? Result<void>{}
                        : fail(Errc::kRefused, "the peer closed the connection");
        }
        if (!r) {
            failed_ = r.error().code == Errc::kClosed
                          ? std::move(r).error()
                          : Error(r.error().code, "TLS handshake with " + peer_address() + ": " + r.error().message +
                                                      "; both nodes need the same key_file for each other");
        }
    }
    co_return failed_ ? Result<void>(std::unexpected(*failed_)) : Result<void>{};
}

/// As much as there is without waiting; else 0, and `error` says why.
std::size_t TlsStream::read_now(MutableBytes to, int& error) {
    std::size_t total = 0;
    error = SSL_ERROR_NONE;
    while (total < to.size() && error == SSL_ERROR_NONE) {
        std::size_t n = 0;
        ERR_clear_error();
        const int good = SSL_read_ex(ssl_.get(), to.data() + total, to.size() - total, &n);
        error = good == 1 ? SSL_ERROR_NONE : SSL_get_error(ssl_.get(), good);
        total += good == 1 ? n : 0;
    }
    return total;
}

Task<Result<std::size_t>> TlsStream::read_some(MutableBytes to) {
    if (!ready_) {
        CO_TRY_VOID(co_await handshake());
    }
    for (;;) {
        int error = SSL_ERROR_NONE;
        const std::size_t n = read_now(to, error);
        const bool broken = n == 0 && error != SSL_ERROR_ZERO_RETURN && error != SSL_ERROR_WANT_READ;
        const std::string reason = broken ? openssl_reason() : std::string();  // before other streams have their turn
        if (has_output() && !broken) {
            CO_TRY_VOID(co_await send());
        }
        if (n > 0 || error == SSL_ERROR_ZERO_RETURN) {
            co_return n;
        }
        if (broken) {
            co_return fail(Errc::kIo, "reading from " + peer_address() + ": TLS: " + reason);
        }
        CO_TRY(const bool more, co_await receive());
        if (!more) {
            co_return std::size_t{0};
        }
    }
}

Task<Result<void>> TlsStream::write(std::span<const ConstBytes> parts) {
    if (!ready_) {
        CO_TRY_VOID(co_await handshake());
    }
    std::size_t encrypted = 0;
    for (ConstBytes part : parts) {
        while (!part.empty()) {
            if (rekeyed_ >= context.rekey_bytes) {  // TL5; the peer need not answer: its own keys are its own
                ERR_clear_error();
                if (SSL_key_update(ssl_.get(), SSL_KEY_UPDATE_NOT_REQUESTED) != 1) {
                    co_return fail(Errc::kIo, "new keys for " + peer_address() + ": TLS: " + openssl_reason());
                }
                rekeyed_ = 0;
            }
            std::size_t n = 0;
            ERR_clear_error();
            const std::size_t step = std::min(part.size(), kSendBytes);
            if (SSL_write_ex(ssl_.get(), part.data(), step, &n) != 1) {
                co_return fail(Errc::kIo, "writing to " + peer_address() + ": TLS: " + openssl_reason());
            }
            part = part.subspan(n);
            encrypted += n;
            rekeyed_ += n;
            if (encrypted >= kSendBytes) {
                encrypted = 0;
                CO_TRY_VOID(co_await send());
            }
        }
    }
    co_return co_await send();
}

class TlsListener final : public Listener {
  public:
    TlsListener(const TlsContext& context, std::unique_ptr<Listener> below)
        : context_(context), below_(std::move(below)) {}
    Task<Result<std::unique_ptr<Stream>>> accept() override {
        CO_TRY(std::unique_ptr<Stream> stream, co_await below_->accept());
        co_return std::make_unique<TlsStream>(context_, std::move(stream), nullptr);
    }
    void close() override { below_->close(); }
    [[nodiscard]] std::string local_address() const override { return below_->local_address(); }

  private:
    const TlsContext& context_;
    std::unique_ptr<Listener> below_;
};

}  // namespace

TlsNetwork::TlsNetwork(Network& below, std::string node, std::vector<TlsPeer> peers, std::uint64_t rekey_bytes)
    : below_(below), context_(std::make_unique<TlsContext>(std::move(node), std::move(peers), rekey_bytes)) {}

TlsNetwork::~TlsNetwork() = default;

Result<std::unique_ptr<Listener>> TlsNetwork::listen(std::string_view address) {
    TRY(std::unique_ptr<Listener> listener, below_.listen(address));
    return std::make_unique<TlsListener>(*context_, std::move(listener));
}

Task<Result<std::unique_ptr<Stream>>> TlsNetwork::connect(std::string address, std::int64_t timeout_ms) {
    const TlsPeer* peer = context_->find(address, &TlsPeer::address);
    if (peer == nullptr) {
        co_return fail(Errc::kNotFound, "no peer has the address " + address);
    }
    CO_TRY(std::unique_ptr<Stream> stream, co_await below_.connect(std::move(address), timeout_ms));
    co_return std::make_unique<TlsStream>(*context_, std::move(stream), peer);
}

}  // namespace gemel::tls
