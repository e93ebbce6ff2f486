// SPDX-License-Identifier: Apache-2.0
#include "raid/dirty_set.hpp"

#include <algorithm>

#include "gemel/check.hpp"
#include "gemel/test_switch.hpp"

namespace gemel::raid {

namespace {
/// A stripe used so few writes ago is where a sequential writer was.
constexpr std::uint64_t kRecentUses = 64;
}  // namespace

const DirtySet::Stripe* DirtySet::find(std::uint64_t stripe) const {
    const auto at = stripes_.find(stripe);
    return at == stripes_.end() ? nullptr : &at->second;
}

void DirtySet::unlink(Stripe& s) {
    (s.older != nullptr ? s.older->newer : oldest_) = s.newer;
    (s.newer != nullptr ? s.newer->older : newest_) = s.older;
    s.older = s.newer = nullptr;
}

void DirtySet::push_newest(Stripe& s) {
    s.older = newest_;
    (newest_ != nullptr ? newest_->newer : oldest_) = &s;
    newest_ = &s;
}

DirtySet::Stripe& DirtySet::insert(std::uint64_t stripe) {
    const auto [at, fresh] = stripes_.try_emplace(stripe);
    if (fresh) {
        at->second.index = stripe;
        push_newest(at->second);
    }
    return at->second;
}

void DirtySet::use(Stripe& s) {
    ++s.users;
    s.used = ++uses_;
    if (newest_ != &s) {
        unlink(s);
        push_newest(s);
    }
}

/// DS1, DS3.
void DirtySet::grow(Stripe& s, const BlockBox& box, std::uint64_t ticket, std::vector<DirtyEntry>& out) {
    columns_ += box.columns() - s.box.columns();
    s.box = box;
    s.durable = false;
    s.ticket = ticket;
    out.push_back({s.index, box, false});
}

bool DirtySet::hold_if_listed(const TouchedBlocks& write) {
    for (std::uint64_t i = write.first(); i <= write.last(); ++i) {
        const Stripe* s = find(i);
        if (s == nullptr || !s->durable || !s->box.covers(write.box(i))) {
            return false;
        }
    }
    for (std::uint64_t i = write.first(); i <= write.last(); ++i) {
        use(stripes_.find(i)->second);
    }
    return true;
}

std::size_t DirtySet::missing(const TouchedBlocks& write) const {
    std::size_t n = 0;
    for (std::uint64_t i = write.first(); i <= write.last(); ++i) {
        n += find(i) == nullptr ? 1 : 0;
    }
    return n;
}

/// The stripe before the write was used a moment ago, and the write's first is not in the set yet.
bool DirtySet::continues(const TouchedBlocks& write) const {
    if (write.first() == 0 || find(write.first()) != nullptr) {
        return false;
    }
    const Stripe* before = find(write.first() - 1);
    return before != nullptr && before->used != 0 && uses_ - before->used <= kRecentUses;
}

std::uint64_t DirtySet::hold(const TouchedBlocks& write, const Reach& reach, std::vector<DirtyEntry>& out) {
    const std::uint64_t ticket = tickets_ + 1;
    const std::size_t before = out.size();
    const bool sequential = !reach.exact && continues(write);
    for (std::uint64_t i = write.first(); i <= write.last(); ++i) {
        const BlockBox box = write.box(i);
        Stripe& s = insert(i);
        if (s.box.columns() == 0) {
            grow(s, sequential ? reach.whole : box, ticket, out);
        } else if (!s.box.covers(box)) {
            grow(s, reach.exact ? s.box.joined(box) : reach.whole, ticket, out);
        }
        use(s);
    }
    const std::uint64_t group_end = std::min(reach.stripes, round_down(write.last(), reach.group) + reach.group);
    const std::uint64_t end = sequential ? std::min(write.last() + 1 + reach.ahead, group_end) : 0;
    for (std::uint64_t i = write.last() + 1; i < end && find(i) == nullptr; ++i) {
        grow(insert(i), reach.whole, ticket, out);
    }
    if (out.size() == before) {
        return 0;
    }
    return tickets_ = ticket;
}

void DirtySet::recorded(std::span<const DirtyEntry> entries, std::uint64_t ticket) {
    for (const DirtyEntry& e : entries) {
        const auto at = stripes_.find(e.stripe);
        if (at != stripes_.end() && at->second.ticket == ticket) {
            at->second.durable = true;
        }
    }
}

bool DirtySet::listed(std::uint64_t first, std::uint64_t last) const {
    for (std::uint64_t i = first; i <= last; ++i) {
        const Stripe* s = find(i);
        CHECK(s != nullptr && s->users > 0);
        if (!s->durable) {
            return false;
        }
    }
    return true;
}

void DirtySet::release(const TouchedBlocks& write) {
    for (std::uint64_t i = write.first(); i <= write.last(); ++i) {
        Stripe& s = stripes_.at(i);
        CHECK(s.users > 0);
        --s.users;
    }
}

void DirtySet::sweep(Sweep how, std::vector<DirtyEntry>& kept) {
    const std::size_t goal = how == Sweep::kAllUnused   ? 0
                             : how == Sweep::kOlderHalf ? stripes_.size() / 2
                                                        : stripes_.size();
    const bool omit_unused = how != Sweep::kAllUnused && active(TestSwitch::kJournalStaysListed);
    for (Stripe* s = oldest_; s != nullptr && stripes_.size() > goal;) {
        Stripe* next = s->newer;
        if (s->users == 0) {
            columns_ -= s->box.columns();
            unlink(*s);
            stripes_.erase(s->index);
        }
        s = next;
    }
    for (const auto& [index, s] : stripes_) {
        if (!(omit_unused && s.users == 0) && !(active(TestSwitch::kJournalOmitInUse) && s.users > 0)) {
            kept.push_back({index, s.box, false});
        }
    }
}

}  // namespace gemel::raid
