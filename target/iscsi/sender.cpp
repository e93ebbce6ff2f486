// SPDX-License-Identifier: Apache-2.0
#include "target/iscsi/sender.hpp"

#include "target/iscsi/digest.hpp"

namespace gemel::iscsi {

namespace {

// Where every PDU of the target has its numbers (RFC 7143 §11).
constexpr std::size_t kStatSnAt = 24;
constexpr std::size_t kExpCmdSnAt = 28;
constexpr std::size_t kMaxCmdSnAt = 32;
constexpr std::size_t kDataLengthAt = 5;

void store_data_length(std::byte* bhs, std::size_t bytes) {
    bhs[kDataLengthAt] = static_cast<std::byte>(bytes >> 16U);
    bhs[kDataLengthAt + 1] = static_cast<std::byte>(bytes >> 8U);
    bhs[kDataLengthAt + 2] = static_cast<std::byte>(bytes);
}

}  // namespace

Sender::Sender(Stream& stream, SendSource& source, Gate& gate, const SessionParameters& parameters,
               std::uint32_t stat_sn)
    : stream_(stream), source_(source), gate_(gate), parameters_(parameters), stat_sn_(stat_sn) {
    flush_work_.sender = this;
    flush_work_.run = [](Work& w) noexcept {
        auto& work = static_cast<FlushWork&>(w);
        Sender& sender = *work.sender;
        work.posted = false;
        sender.flush();
        sender.gate_.leave();
    };
    framing_.resize(kBatchPdus * kFrameBytes);
}

Sender::~Sender() {
    CHECK(!writing_ && !flush_work_.posted && head_ == nullptr);
}

ControlPdu& Sender::control() {
    if (free_controls_.empty()) {
        controls_.push_back(std::make_unique<ControlPdu>());
        return *controls_.back();
    }
    ControlPdu* item = free_controls_.back();
    free_controls_.pop_back();
    return *item;
}

void Sender::recycle(ControlPdu& item) {
    --control_count_;
    control_bytes_ -= item.payload().size();
    item.text = {};
    item.data = Buffer{};
    item.data_bytes = 0;
    free_controls_.push_back(&item);
}

void Sender::push(SendItem& item) {
    if (item.kind == SendItem::Kind::kControl) {
        ++control_count_;
        control_bytes_ += static_cast<ControlPdu&>(item).payload().size();
    }
    item.next = nullptr;
    (tail_ != nullptr ? tail_->next : head_) = &item;
    tail_ = &item;
    if (broken_) {
        abandon();
    }
}

void Sender::pop() {
    SendItem* item = head_;
    head_ = item->next;
    if (head_ == nullptr) {
        tail_ = nullptr;
    }
    item->next = sent_;
    sent_ = item;
}

void Sender::queue(ScsiTask& task) {
    push(task);
}

void Sender::queue_echo(const NopIn& pdu, Buffer data, std::size_t bytes) {
    ControlPdu& item = control();
    encode_to(pdu, item.bhs.data());
    item.data = std::move(data);
    item.data_bytes = bytes;
    item.stat_sn = StatSn::kAdvances;
    push(item);
}

void Sender::flush() {
    if (writing_ || head_ == nullptr || broken_) {
        return;
    }
    writing_ = true;
    if (!gate_.spawn(write_loop())) {
        writing_ = false;
        abandon();
    }
}

void Sender::flush_soon() {
    if (writing_ || flush_work_.posted || !gate_.enter()) {
        return;
    }
    flush_work_.posted = true;
    Executor::current().post(flush_work_);
}

Task<void> Sender::write_loop() {
    while (head_ != nullptr && !broken_) {
        gather();
        const Result<void> written = co_await stream_.write(parts_);
        if (!written) {
            broken_ = true;
            stream_.close();
        }
        finish(sent_);
        progress_.set();
        progress_.reset();
    }
    writing_ = false;
    if (broken_) {
        abandon();
    }
}

void Sender::gather() {
    framing_used_ = 0;
    parts_.clear();
    pdus_ = bytes_ = 0;
    framing_last_ = false;
    while (head_ != nullptr && room()) {
        if (head_->kind == SendItem::Kind::kTask) {
            if (!gather_task(static_cast<ScsiTask&>(*head_))) {
                return;
            }
        } else {
            auto& item = static_cast<ControlPdu&>(*head_);
            emit(item.bhs.data(), item.payload(), item.stat_sn);
        }
        pop();
    }
}

bool Sender::gather_task(ScsiTask& task) {
    BhsBytes bhs;
    while (!task.in_done()) {
        if (!room()) {
            return false;
        }
        ConstBytes data;
        const DataIn pdu = next_data_in(task, parameters_, data);
        const bool status = (pdu.flags & kDataInStatus) != 0;
        if (status) {
            source_.status_leaves(task);
        }
        encode_to(pdu, bhs.data());
        emit(bhs.data(), data, status ? StatSn::kAdvances : StatSn::kReserved);
        if (status) {
            return true;
        }
    }
    if (!room()) {
        return false;
    }
    ConstBytes sense;
    const ScsiResponse response = make_response(task, sense);
    source_.status_leaves(task);
    encode_to(response, bhs.data());
    emit(bhs.data(), sense, StatSn::kAdvances);
    return true;
}

void Sender::emit(const std::byte* bhs, ConstBytes data, StatSn stat_sn) {
    std::byte* head = framing_.data() + framing_used_;
    std::memcpy(head, bhs, kBhsBytes);
    store_data_length(head, data.size());
    store_be(head + kStatSnAt, stat_sn == StatSn::kReserved ? 0 : stat_sn_);
    store_be(head + kExpCmdSnAt, source_.exp_cmd_sn());
    store_be(head + kMaxCmdSnAt, source_.max_cmd_sn());
    stat_sn_ += stat_sn == StatSn::kAdvances ? 1 : 0;
    std::size_t size = kBhsBytes;
    if (parameters_.header_digest) {
        store_digest(head + size, crc32c(ConstBytes(head, size)));
        size += kDigestBytes;
    }
    add_framing(ConstBytes(head, size));
    if (!data.empty()) {
        parts_.push_back(data);
        framing_last_ = false;
        std::byte* tail = framing_.data() + framing_used_;
        const std::size_t padding = padding_of(data.size());
        std::memset(tail, 0, padding);
        size = padding;
        if (parameters_.data_digest) {
            store_digest(tail + size, data_digest(data));
            size += kDigestBytes;
        }
        if (size > 0) {
            add_framing(ConstBytes(tail, size));
        }
    }
    ++pdus_;
    bytes_ += data.size();
}

void Sender::add_framing(ConstBytes bytes) {
    framing_used_ += bytes.size();
    // Headers without data lie one after the other: one part for all of them.
    if (framing_last_) {
        parts_.back() = ConstBytes(parts_.back().data(), parts_.back().size() + bytes.size());
    } else {
        parts_.push_back(bytes);
        framing_last_ = true;
    }
}

void Sender::finish(SendItem*& list) {
    while (list != nullptr) {
        SendItem* item = std::exchange(list, list->next);
        if (item->kind == SendItem::Kind::kTask) {
            source_.answered(static_cast<ScsiTask&>(*item));
        } else {
            recycle(static_cast<ControlPdu&>(*item));
        }
    }
}

void Sender::abandon() {
    broken_ = true;
    // A task at the head may have data in the present write: its buffer is kept until that ends.
    if (!writing_) {
        finish(sent_);
        finish(head_);
        tail_ = nullptr;
    }
    progress_.set();
    progress_.reset();
}

Task<void> Sender::below_bound() {
    while (over_bound() && !broken_) {
        co_await progress_.wait();
    }
}

Task<void> Sender::drained() {
    flush();
    while (!idle() && !broken_) {
        co_await progress_.wait();
    }
}

}  // namespace gemel::iscsi
