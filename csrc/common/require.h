#pragma once

#include <sstream>
#include <stdexcept>

namespace daqakd {

// Throws `words` as they are: users read them, so they name an argument and no source file.
template <class... Words>
void require(bool holds, const Words&... words) {
  if (holds) return;
  std::ostringstream text;
  (text << ... << words);
  throw std::runtime_error(text.str());
}

}  // namespace daqakd
