--- Where in the text of a configuration file a key stands: Lua does not remember for the values of a table.
--
-- The text is cut into words, and the table behind the last `return` at the outermost level is walked along the key's path: `observability.pipelines[2].dispatcher.url`.
-- The line of the deepest key found is given: what is computed, or stands in a local variable, ends the walk where it is mentioned. Nothing here raises, whatever the text is.
local paths = require "llmproxy.path"

local lines = {}

-- Words of the text as { kind, value, line }: name, string, number, and each sign as its own kind.
local function words_of(text)
  local words, position, line = {}, 1, 1
  local function add(kind, value) words[#words + 1] = { kind = kind, value = value, line = line } end
  local function skip(to)
    for _ in text:sub(position, to - 1):gmatch("\n") do line = line + 1 end
    position = to
  end
  while position <= #text do
    local level = text:match("^%-%-%[(=*)%[", position)
    local long = level or text:match("^%[(=*)%[", position)
    if long then
      local from = text:find("[", position + (level and 3 or 1), true) + 1
      local first, last = text:find("]" .. long .. "]", from, true)
      if not level then add("string", text:sub(from, (first or 0) - 1)) end
      skip((last or #text) + 1)
    elseif text:find("^%-%-", position) then
      skip(text:find("\n", position, true) or #text + 1)
    elseif text:find("^[\"']", position) then
      local quote, ending = text:sub(position, position), position + 1
      while ending <= #text and text:sub(ending, ending) ~= quote do ending = ending + (text:sub(ending, ending) == "\\" and 2 or 1) end
      add("string", text:sub(position + 1, ending - 1))
      skip(ending + 1)
    else
      local name = text:match("^[%a_][%w_]*", position)
      local number = not name and text:match("^%d[%w.]*", position)
      local blank = text:match("^%s+", position)
      if name then add("name", name) elseif number then add("number", number) elseif not blank then add(text:sub(position, position)) end
      skip(position + #(name or number or blank or " "))
    end
  end
  return words
end

local OPENS = { ["{"] = true, ["("] = true, ["["] = true, ["function"] = true, ["do"] = true, ["then"] = true, ["repeat"] = true }
local CLOSES = { ["}"] = true, [")"] = true, ["]"] = true, ["end"] = true, ["until"] = true, ["elseif"] = true }

-- How much deeper it is behind a word.
local function step(word)
  local text = word.kind == "name" and word.value or word.kind
  if OPENS[text] then return 1 end
  return CLOSES[text] and -1 or 0
end

-- Where the value that begins at a word ends: at its "," or ";", or at what closes the table.
local function value_end(words, index)
  local depth = 0
  while words[index] do
    local kind = words[index].kind
    if depth == 0 and (kind == "," or kind == ";" or kind == "}") then return index end
    depth = depth + step(words[index])
    index = index + 1
  end
  return index
end

-- The key of the entry that begins at a word and where its value begins; position: the number it has without a key.
local function entry_at(words, index, position)
  local first, second = words[index], words[index + 1] or {}
  local third, fourth = words[index + 2] or {}, words[index + 3] or {}
  if first.kind == "name" and second.kind == "=" and third.kind ~= "=" then return first.value, index + 2 end
  if first.kind == "[" and third.kind == "]" and fourth.kind == "=" then
    if second.kind == "string" then return second.value, index + 4 end
    if second.kind == "number" then return tonumber(second.value), index + 4 end
  end
  return position, index
end

-- The entry of that key in the table whose "{" is at a word: the line of its key, and where its value begins.
local function find(words, index, key)
  local position = 1
  index = index + 1
  while words[index] and words[index].kind ~= "}" do
    local name, value = entry_at(words, index, position)
    if name == key then return words[index].line, value end
    if name == position then position = position + 1 end
    index = value_end(words, value)
    if words[index] and words[index].kind ~= "}" then index = index + 1 end
  end
end

-- The "{" behind the last return that is in no function.
local function outermost(words)
  local depth, found = 0, nil
  for index, word in ipairs(words) do
    if depth == 0 and word.kind == "name" and word.value == "return" and (words[index + 1] or {}).kind == "{" then found = index + 1 end
    depth = depth + step(word)
  end
  return found
end

--- The line on which the key of that path stands, or the deepest part of it that can be found; nil when nothing of it can.
---@param text string of the file
---@param path string as in errors: observability.pipelines[2].dispatcher.url
---@return integer?
function lines.of(text, path)
  local words = words_of(text)
  local index, line = outermost(words), nil
  for _, key in ipairs(paths.parse(path) or {}) do
    if not index or (words[index] or {}).kind ~= "{" then break end
    local found, value = find(words, index, key)
    if not found then break end
    line, index = found, value
  end
  return line
end

return lines
