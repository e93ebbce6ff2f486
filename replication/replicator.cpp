// SPDX-License-Identifier: Apache-2.0
#include "replication/replicator.hpp"

#include "replication/node.hpp"

namespace gemel::replication {

namespace {

/// Runs `operate` on the volume's mirror, on the node's executor, and comes back.
template <class Operate>
Task<Result<void>> on_volume(Node& node, std::string volume, Operate operate) {
    Executor& caller = Executor::current();
    co_await resume_on(node.home());
    Mirror* mirror = node.find(volume);
    Result<void> result = fail(Errc::kNotFound, "no volume '" + volume + "'");
    if (mirror != nullptr) {
        result = co_await operate(*mirror);
    }
    co_await resume_on(caller);
    co_return result;
}

Task<Result<void>> ready(Result<void> result) {
    co_return result;
}

}  // namespace

Replicator::Replicator(Environment& env, NodeConfig config, Executor& home)
    : node_(std::make_unique<Node>(env, std::move(config), home)) {}

Replicator::~Replicator() = default;

BlockDevice& Replicator::add_volume(VolumeStore& store, std::string_view volume) {
    return node_->add_volume(store, volume);
}

BlockDevice& Replicator::severed_copy(std::string_view volume) {
    Mirror* mirror = node_->find(std::string(volume));
    CHECK(mirror != nullptr);
    return mirror->severed_copy();
}

Task<Result<void>> Replicator::start() {
    Executor& caller = Executor::current();
    co_await resume_on(node_->home());
    Result<void> result = co_await node_->start();
    co_await resume_on(caller);
    co_return result;
}

Task<void> Replicator::stop() {
    Executor& caller = Executor::current();
    co_await resume_on(node_->home());
    co_await node_->stop();
    co_await resume_on(caller);
}

Task<Result<void>> Replicator::establish(EstablishRequest request) {
    std::string volume = request.volume;
    return on_volume(*node_, std::move(volume), [r = std::move(request)](Mirror& m) { return m.establish(r); });
}

Task<Result<void>> Replicator::sever(std::string volume, bool force) {
    return on_volume(*node_, std::move(volume), [force](Mirror& m) { return m.sever(force); });
}

Task<Result<void>> Replicator::re_establish(std::string volume, std::string from_node, bool force) {
    return on_volume(*node_, std::move(volume),
                     [from = std::move(from_node), force](Mirror& m) { return m.re_establish(from, force); });
}

Task<Result<void>> Replicator::resize(std::string volume, SectorCount sectors, bool force_shrink) {
    return on_volume(*node_, std::move(volume),
                     [sectors, force_shrink](Mirror& m) { return m.resize(sectors, force_shrink); });
}

Task<Result<void>> Replicator::promote(std::string volume, bool force) {
    return on_volume(*node_, std::move(volume), [force](Mirror& m) { return m.promote(force); });
}

Task<Result<void>> Replicator::verify(std::string volume, VerifyOrder order) {
    return on_volume(*node_, std::move(volume),
                     [order](Mirror& m) -> Task<Result<void>> { return ready(m.verify(order)); });
}

Task<std::vector<PairStatus>> Replicator::status() {
    Executor& caller = Executor::current();
    co_await resume_on(node_->home());
    std::vector<PairStatus> out = node_->status();
    co_await resume_on(caller);
    co_return out;
}

std::string Replicator::listen_address() const {
    return node_->listen_address();
}

std::uint64_t Replicator::refused_connections() const {
    return node_->refused_connections();
}

}  // namespace gemel::replication
