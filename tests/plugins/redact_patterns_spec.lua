-- Which texts are secrets, and which only look like them.
local patterns = require "llmproxy.redact.patterns"

-- What one pattern finds in a text, put into brackets.
local function marked(name, text)
  local parts, position = {}, 1
  patterns.new(name).search(text, function(first, last)
    parts[#parts + 1] = text:sub(position, first - 1) .. "<" .. text:sub(first, last) .. ">"
    position = last + 1
  end)
  return table.concat(parts) .. text:sub(position)
end

local function finds(t, name, texts)
  for _, text in ipairs(texts) do
    local plain = text:gsub("[<>]", "")
    t.equal(marked(name, plain), text)
    t.equal(marked(name, ("x "):rep(9000) .. plain .. (" x"):rep(9000)), ("x "):rep(9000) .. text .. (" x"):rep(9000))
  end
end

return {
  ["e-mail addresses"] = function(t)
    finds(t, "email", {
      "<ann@example.com>", "write to <ann.b+c_d%e-f@mail.example.co.uk>, please", "mailto:<a@b.de>?subject=x", "(<x@y.museum>)", "<a@b.co> <c@d.org>,<e@f.net>", '"<o@p.io>"',
      "<jörg@example.com>", "<ann@müller.de>", "<иван@почта.рф>", "<ann@xn--mller-kva.de>", "联系<ann@example.com>谢谢", "<ann@example.com>.",
    })
  end,

  ["what is no e-mail address"] = function(t)
    finds(t, "email", { "@", "a@", "@b.de", "a@b", "npm i @scope/name@1.2.3", "@app.route('/x')", "user@localhost", "a @ b.de", ("@"):rep(500), ("a@"):rep(500), "1@2.3" })
  end,

  ["card numbers, by their sum"] = function(t)
    finds(t, "card", {
      "<4111111111111111>", "<4111 1111 1111 1111>", "<4111-1111-1111-1111>", "pay with <5500005555555559>.", "<378282246310005>", "<3782 822463 10005>", "<30569309025904>", "<6011111111111117>",
      "2024 <4111 1111 1111 1111>", "<4111 1111 1111 1111> 12 27", "<4111 1111 1111 1111>, <5555 5555 5555 4444>", "<4111\194\1601111\194\1601111\194\1601111>", "no:<4111111111111111>",
      "<4222222222222>", "card_<4111111111111111>",
    })
  end,

  ["numbers that are no cards"] = function(t)
    finds(t, "card", { "4111111111111112", "4111 1111 1111 1112", "1700000000000", "1700000000", "411111111111", "a4111111111111111", "41111111111111111111111",
      "123e4567-e89b-12d3-a456-426614174000", ("4111 "):rep(1000), ("4"):rep(1000) })
  end,

  ["phone numbers"] = function(t)
    finds(t, "phone", {
      "<+49 30 1234567>", "<+1 (212) 555-0123>", "<+442079460958>", "call <+33 6 12 34 56 78>!", "<0049 30 1234567>", "<(212) 555-0123>", "<212-555-0123>", "<1-800-555-0199>", "<030 1234567>",
      "<06 12 34 56 78>", "<0171/1234567>",
      "<(030) 1234567>", "tel:<+4930123456>",
    })
  end,

  ["numbers that are no phones"] = function(t)
    finds(t, "phone", {
      "1700000000", "2024-01-02", "01-02-2024", "05/06/2024 12:30", "12:30:45", "10.0.0.1", "192.168.100.200", "1.234.567.890", "3.14159265358979", "id-212-555-0123-x", "call_0171234567",
      "$1,234,567,890", "+5", "1 + 2 = 3", "0x7fff5fbff8c0",
      "2024-01-02T03:04:05.678901Z", "550e8400-e29b-41d4-a716-446655440000", "v1.2.3-456", "0.1 0.2 0.3",
    })
  end,

  ["keys of providers"] = function(t)
    local letters = "Ab1" .. ("aB3dE5gH7j"):rep(12)
    local function of(size) return letters:sub(1, size) end
    finds(t, "api_key", {
      "<sk-" .. of(48) .. ">", "<sk-proj-" .. of(40) .. "_-" .. of(60) .. ">", "key=<sk-ant-api03-" .. of(90) .. ">", "<sk-or-v1-" .. ("0a"):rep(32) .. ">", "<AIza" .. of(35) .. ">",
      "<AKIAIOSFODNN7EXAMPLE>", "'<ghp_" .. of(36) .. ">'",
      "<github_pat_" .. of(60) .. ">", "<xoxb-1234567890-abcdef>", "<hf_" .. of(34) .. ">", "<gsk_" .. of(52) .. ">", "<xai-" .. of(80) .. ">", "<pplx-" .. of(48) .. ">", "<r8_" .. of(37) .. ">",
      "<nvapi-" .. of(64) .. ">",
      "Bearer <eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U>", "<sk_live_" .. of(24) .. ">", "<glpat-" .. of(20) .. ">",
    })
  end,

  ["private keys, whole or without their end"] = function(t)
    local line = ("MIIEvQIBADANBgkqhkiG9w0B"):rep(2) .. "AQEFAASC"
    local body = "-----BEGIN RSA PRIVATE KEY-----\n" .. (line .. "\n"):rep(25)
    finds(t, "api_key", {
      "key: <" .. body .. "MIIE==\n-----END RSA PRIVATE KEY-----> and on", "<" .. (body .. "MIIE==\n-----END RSA PRIVATE KEY-----"):gsub("\n", "\\n") .. ">",
      "<-----BEGIN PRIVATE KEY-----\n" .. line .. ">", "a file that begins with <-----BEGIN PRIVATE KEY-----> is one",
      "<-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,0123\n\n" .. line .. "\n-----END RSA PRIVATE KEY----->",
    })
  end,

  ["what is no key"] = function(t)
    finds(t, "api_key", { "sk-learn-classification-of-many-things", "task-1234567890123456789012345", "sk-1", "AKIA", "hf_token", "https://example.com/eyJhbGciOiJIUzI1NiJ9",
      "-----BEGIN PUBLIC KEY-----", "gsk_short", ("sk-"):rep(30) })
  end,

  ["own patterns are expressions"] = function(t)
    finds(t, { name = "ticket", pattern = "BUG-[0-9]{1,6}", ignore_case = true }, { "see <bug-12>, <BUG-7>" })
    t.matches(patterns.problem "a(", "at byte 3 of the pattern", true)
    t.equal(patterns.problem "a", nil)
  end,
}
