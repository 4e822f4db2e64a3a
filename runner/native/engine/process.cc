#include "engine/process.h"

#include <algorithm>
#include <cerrno>

#include <poll.h>
#include <sys/socket.h>

namespace kandinsky {

namespace {

constexpr int kSlice = 100;  // milliseconds of one look

// Two ends of a socket, closed in programs that are started.
std::pair<Descriptor, Descriptor> Sockets() {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    throw EngineError("MindSpore Lite does not start: " + Reason(errno));
  }
  return {Descriptor(ends[0]), Descriptor(ends[1])};
}

}  // namespace

BridgeProcess::BridgeProcess(Starters *starters, const std::string &message, const std::vector<int> &descriptors, std::string name,
                             double deadline, const Stop *stop)
    : name_(std::move(name)), deadline_(deadline), stop_(stop) {
  try {
    auto [socket, their_socket] = Sockets();
    auto [leash, their_leash] = Sockets();
    std::vector<int> given = {their_socket.get(), their_leash.get()};
    given.insert(given.end(), descriptors.begin(), descriptors.end());
    if (log_.file() >= 0) {
      given.push_back(log_.file());
    }
    starter_ = starters->Start(message, given);
    socket_ = std::move(socket);
    leash_ = std::move(leash);
  } catch (const EngineError &error) {
    throw EngineError(name_ + ": " + error.what());
  }
}

std::string BridgeProcess::Line() {
  size_t end;
  while ((end = received_.find('\n')) == std::string::npos) {
    Wait();
    char block[1 << 14];
    const ssize_t count = recv(socket_.get(), block, sizeof(block), 0);
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count <= 0) {
      const std::string cause = CauseOfDeath();
      if (stop_ != nullptr && stop_->asked()) {  // a signal to all processes, this one among them
        throw Stopped();
      }
      throw EngineError(name_ + ": " + cause);
    }
    received_.append(block, static_cast<size_t>(count));
  }
  const std::string line = received_.substr(0, end);
  received_.erase(0, end + 1);
  if (line.rfind("error ", 0) == 0) {
    Refuse(line.substr(6));
  }
  return line;
}

void BridgeProcess::Run() {
  if (!usable()) {
    throw EngineError(name_ + ": a run of it has not ended: load it again");
  }
  log_.Clear();
  const std::string number = std::to_string(++requests_), request = number + "\n";
  if (send(socket_.get(), request.data(), request.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(request.size())) {
    throw EngineError(name_ + ": " + CauseOfDeath());
  }
  const std::string answer = Line();
  if (answer.rfind("failed " + number + " ", 0) == 0) {
    Refuse(answer.substr(8 + number.size()));
  }
  if (answer != "done " + number) {
    Close();
    throw EngineError(name_ + ": MindSpore Lite's process answered '" + answer + "' to request " + number + ": load it again");
  }
}

void BridgeProcess::Close() {
  if (leash_) {
    shutdown(leash_.get(), SHUT_WR);  // it is killed: it holds no state worth a farewell
    socket_.Close();
    if (starter_->ready()) {
      WaitForEnd();
    }
    leash_.Close();
  }
}

void BridgeProcess::Wait() {
  for (double left = deadline_; left > 0; left -= kSlice / 1000.0) {
    if (stop_ != nullptr && stop_->asked()) {
      Close();
      throw Stopped();
    }
    pollfd watched{socket_.get(), POLLIN, 0};
    if (poll(&watched, 1, static_cast<int>(std::min<double>(kSlice, std::max(1.0, left * 1000)))) > 0) {
      return;
    }
  }
  Close();
  throw EngineError(name_ + ": MindSpore Lite has not answered for " + Short(deadline_) +
                    " s and was ended: if it only needs longer, set KANDINSKY_MINDIR_DEADLINE to more seconds");
}

std::string BridgeProcess::CauseOfDeath() {
  const std::optional<int> status = WaitForEnd();
  leash_.Close();
  socket_.Close();
  return status ? log_.CauseOfDeath(status) : starter_->CauseOfDeath();
}

std::optional<int> BridgeProcess::WaitForEnd() const {
  int status = 0;
  ssize_t count;
  while ((count = recv(leash_.get(), &status, sizeof(status), MSG_WAITALL)) < 0 && errno == EINTR) {
  }
  return count == sizeof(status) ? std::optional<int>(status) : std::nullopt;
}

void BridgeProcess::Refuse(const std::string &text) {
  const std::string reason = log_.Reason();
  Close();
  throw EngineError(name_ + ": MindSpore Lite cannot use it: " + (reason.empty() ? text : reason));
}

}  // namespace kandinsky
