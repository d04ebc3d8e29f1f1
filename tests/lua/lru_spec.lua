local lru = require "llmproxy.lru"
local time = require "llmproxy.time"

return {
  ["the entry that was not used for the longest time goes"] = function(t)
    local cache = lru.new { max = 3 }
    for key = 1, 3 do cache:set(key, key * 10) end
    t.equal(cache:get(1), 10)
    cache:set(4, 40)
    t.equal({ cache:get(1), cache:get(2) == nil, cache:get(3), cache:get(4), cache:count() }, { 10, true, 30, 40, 3 })
    cache:set(3, 33)
    cache:set(5, 50)
    cache:set(6, 60)
    t.equal({ cache:get(1) == nil, cache:get(4) == nil, cache:get(3), cache:get(5), cache:get(6) }, { true, true, 33, 50, 60 })
  end,

  ["false is a value, nil takes the key out"] = function(t)
    local cache = lru.new { max = 2 }
    cache:set("a", false)
    t.equal(cache:get "a", false)
    cache:set("a", nil)
    t.equal({ cache:get "a" == nil, cache:count() }, { true, 0 })
    cache:set({}, 1)
    cache:delete "absent"
    cache:clear()
    t.equal(cache:count(), 0)
    cache:set("b", 1)
    t.equal(cache:get "b", 1)
  end,

  ["entries expire"] = function(t)
    local cache = lru.new { max = 10, ttl = "20ms" }
    cache:set("short", 1)
    cache:set("long", 2, "1h")
    cache:set("never", 3, 1000000)
    time.sleep(0.03)
    t.equal({ cache:get "short" == nil, cache:get "long", cache:get "never", cache:count() }, { true, 2, 3, 2 })
  end,

  ["a hundred thousand entries, and never more than there may be"] = function(t)
    local cache = lru.new { max = 1000 }
    for key = 1, 100000 do
      cache:set(key, key)
      if key % 7 == 0 then cache:get(key - 500) end
    end
    local found = 0
    for key = 1, 100000 do found = found + (cache:get(key) and 1 or 0) end
    t.equal({ found, cache:count() }, { 1000, 1000 })
  end,

  ["arguments are checked"] = function(t)
    t.raises("llmproxy.lru.new: max: expected an integer from 1 to 10000000, got nothing", lru.new, {})
    t.raises("llmproxy.lru.new: tll: unknown key, did you mean 'ttl'?", lru.new, { max = 1, tll = 1 })
    local cache = lru.new { max = 1 }
    t.raises("lru:get: key: expected a value, got nil", cache.get, cache, nil)
    t.raises("lru:set: key: expected a value, got NaN", cache.set, cache, 0 / 0, 1)
    t.raises('lru:set: ttl: expected a duration as 10 or "10m"', cache.set, cache, 1, 1, "soon")
  end,
}
