--- Patterns with stars, as people write them for paths and models: "*" stands for anything, also for nothing; all other characters for themselves.
--
-- The first place of each piece between two stars will do, so nothing is tried twice: the time is that of a few searches, whatever the text.
local arguments = require "llmproxy.arguments"

local glob = {}

--- A function that tells whether a whole text fits the pattern.
---@param pattern string
---@return fun(text: string): boolean
function glob.compile(pattern)
  arguments.expect(pattern, "string", "llmproxy.glob.compile: pattern")
  local pieces = {}
  for piece in (pattern .. "*"):gmatch("([^*]*)%*") do pieces[#pieces + 1] = piece end
  local first, last, count = pieces[1], pieces[#pieces], #pieces
  if count == 1 then return function(text) return text == first end end
  return function(text)
    if text:sub(1, #first) ~= first then return false end
    local position = #first + 1
    for index = 2, count - 1 do
      local _, piece_end = text:find(pieces[index], position, true)
      if not piece_end then return false end
      position = piece_end + 1
    end
    return #text - #last + 1 >= position and text:sub(#text - #last + 1) == last
  end
end

return glob
