module stamp

go 1.24
