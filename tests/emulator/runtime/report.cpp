#include <dlfcn.h>

#include <cstdio>
#include <map>
#include <stdexcept>
#include <unordered_map>
#include <utility>

#include "state.h"

// What a launch did wrong, each kind of it once with a count.
namespace emulator {
namespace {

constexpr size_t kMostReports = 20;
std::map<std::string, int> reports;

// The function and line of an instruction, by binutils: read only when something is wrong.
std::string ask_addr2line(const void* pc) {
  Dl_info info;
  if (!dladdr(pc, &info)) return "?";
  const long offset = long(uintptr_t(pc) - uintptr_t(info.dli_fbase) - 1);
  char command[600], line[600] = "?";
  snprintf(
      command, sizeof command, "addr2line -Cpife '%s' %#lx 2>&1 | head -c 500 | tr '\\n' ' '",
      info.dli_fname, offset);
  if (FILE* pipe = popen(command, "r")) {
    if (!fgets(line, sizeof line, pipe)) line[0] = 0;
    pclose(pipe);
  }
  return line;
}

}  // namespace

std::string place_of(const void* pc) {
  static std::unordered_map<const void*, std::string> known;
  const auto [found, is_new] = known.try_emplace(pc);
  if (is_new) found->second = ask_addr2line(pc);
  return found->second;
}

void report(const std::string& what, const std::string& place) {
  const bool before = std::exchange(device.checking, true);
  const std::string text = what + " at " + place;
  if (reports.size() < kMostReports || reports.count(text)) ++reports[text];
  ++device.counts.reports;
  device.checking = before;
}

void stop(const std::string& what, const std::string& place) {
  report(what, place);
  device.aborted = true;
  leave();
}

void throw_reports(const std::string& kernel) {
  if (reports.empty()) return;
  std::string text = "emulated CUDA error in " + kernel;
  for (const auto& [what, times] : reports) text += "\n  " + std::to_string(times) + " x " + what;
  reports.clear();
  throw std::runtime_error(text);
}

}  // namespace emulator
